//! The project's own files, as text and as code.
//!
//! Code is the text of a Rust file without comments, string and character literals: what is left
//! is enough to ask whether a name is used. It is no parser: macros are not expanded, and a name
//! that is glued together by one is not seen. Files git ignores are skipped by folder name, since
//! an unpacked archive has no git.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours: build output, fetched tools, results.
const FOLDERS_SKIPPED: &[&str] =
    &["target", ".git", ".tools", "node_modules", "__pycache__", ".pytest_cache", "results", "corpus", "artifacts"];

/// Larger files are data (lock files, recorded traces), not text that somebody wrote.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// One file of the project.
pub(crate) struct Source {
    /// Path from the project's root, with `/` between its parts.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl Source {
    /// The text without comments and literals, line numbers kept.
    pub(crate) fn code(&self) -> String {
        strip(&self.text)
    }

    /// The code without what is compiled for tests only, line numbers kept.
    pub(crate) fn product_code(&self) -> String {
        let stem = self.path.rsplit('/').next().unwrap_or_default();
        if stem == "tests.rs" || stem.ends_with("_tests.rs") {
            return String::new();
        }
        without_test_items(&self.code())
    }

    /// Lines (from 1) of the code that hold `name` as whole words.
    pub(crate) fn lines_with(&self, name: &str) -> Vec<usize> {
        lines_with(&self.code(), name)
    }
}

/// Where the project lies.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project, sorted by path.
pub(crate) fn rust_files() -> Vec<Source> {
    let files: Vec<Source> =
        text_files().into_iter().filter(|file| Path::new(&file.path).extension().is_some_and(|e| e == "rs")).collect();
    assert!(files.len() > 5, "the walk found no sources: a rule that sees nothing proves nothing");
    files
}

/// Every file of the project that is UTF-8 text, sorted by path.
pub(crate) fn text_files() -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project can be listed") {
            let entry = entry.expect("an entry of a project folder can be read");
            let kind = entry.file_type().expect("an entry has a type");
            let name = entry.file_name().to_string_lossy().into_owned();
            if FOLDERS_SKIPPED.contains(&name.as_str()) {
                continue; // `.git` is a file in a second work tree
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.metadata().is_ok_and(|m| m.len() <= TEXT_BYTES_MAX) {
                files.extend(read(&entry.path()));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The file as text; nothing for one that is not UTF-8.
fn read(path: &Path) -> Option<Source> {
    let text = String::from_utf8(fs::read(path).ok()?).ok()?;
    let path = path.strip_prefix(root()).expect("the walk stays inside the project");
    Some(Source { path: path.to_string_lossy().into_owned(), text })
}

/// Lines (from 1) of `code` that hold `name` with no identifier character next to it.
pub(crate) fn lines_with(code: &str, name: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let ends_as_word = name.ends_with(is_word);
    let starts_as_word = name.starts_with(is_word);
    let holds = |line: &str| {
        line.match_indices(name).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + name.len()..].chars().next();
            let inside = starts_as_word && before.is_some_and(is_word) || ends_as_word && after.is_some_and(is_word);
            !inside
        })
    };
    (1..).zip(code.lines()).filter(|(_, line)| holds(line)).map(|(number, _)| number).collect()
}

/// `code` with every item blanked that stands under `#[cfg(test)]`, `#[cfg(all(test, loom))]` and
/// the like. An attribute with a `not(…)` in it counts as product code.
fn without_test_items(code: &str) -> String {
    let mut product = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let (before, attribute_on) = rest.split_at(at);
        product.push_str(before);
        let attribute = &attribute_on[..attribute_on.find(']').map_or(attribute_on.len(), |end| end + 1)];
        let names = |word: &str| !lines_with(attribute, word).is_empty();
        let len = if (names("test") || names("loom")) && !names("not") {
            attribute.len() + item_len(&attribute_on[attribute.len()..])
        } else {
            attribute.len()
        };
        if len == attribute.len() {
            product.push_str(attribute);
        } else {
            product.extend(attribute_on[..len].chars().filter(|c| *c == '\n'));
        }
        rest = &attribute_on[len..];
    }
    product.push_str(rest);
    product
}

/// Bytes up to the end of the item that `code` starts with: its `;`, or its closing brace.
fn item_len(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// `text` with comments and literals blanked. Newlines stay, so that line numbers do.
fn strip(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if first == '"' {
            1 + quoted_len(&rest[1..], '"')
        } else if "rbc".contains(first) && !(previous.is_alphanumeric() || previous == '_') {
            raw_string_len(rest)
        } else if first == '\'' {
            char_literal_len(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            previous = first;
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            previous = ' ';
            rest = &rest[skipped..];
        }
    }
    code
}

/// Bytes of the (nestable) block comment that `text` starts with.
fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0_usize);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Bytes up to and with the closing `quote`, backslashes honoured.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of `r"…"`, `r#"…"#` or the same with a `b` or `c` before it; 0 where `text` starts with
/// anything else (`r#type`, `rest`).
fn raw_string_len(text: &str) -> usize {
    let prefix = if text.starts_with('r') { 1 } else { 2 };
    if text.as_bytes().get(prefix - 1) != Some(&b'r') {
        return 0;
    }
    let hashes = text.bytes().skip(prefix).take_while(|b| *b == b'#').count();
    let open = prefix + hashes + 1;
    if text.as_bytes().get(open - 1) != Some(&b'"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    text[open..].find(&close).map_or(text.len(), |at| open + at + close.len())
}

/// Bytes of a character literal; 0 for a lifetime, which also opens with `'`.
fn char_literal_len(text: &str) -> usize {
    let mut chars = text[1..].char_indices();
    match chars.next() {
        Some((_, '\\')) => 1 + quoted_len(&text[1..], '\''),
        Some(_) => match chars.next() {
            Some((at, '\'')) => 1 + at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "a /* unsafe /* x */ unsafe */ b // unsafe\nc \"un\\\"safe\" 'u' '\\'' &'static r#\"unsafe \"x\" \"# br#\"\"unsafe\"# d";
    assert_eq!(strip(text), "a   b  \nc       &'static     d");
}

#[test]
fn a_name_is_found_as_a_whole_word_only() {
    let code = "unsafe_code\nforbid(unsafe)\nan Instant::now()\nMyInstant::nowhere\nx.elapsed()\n";
    assert_eq!(lines_with(code, "unsafe"), [2]);
    assert_eq!(lines_with(code, "Instant::now"), [3]);
    assert_eq!(lines_with(code, ".elapsed()"), [5]);
}

#[test]
fn test_items_are_not_product_code() {
    let code = "a;\n#[cfg(all(test, loom))]\nmod t {\n{x}\n}\nb;\n#[cfg(not(loom))]\nuse c;\n#[cfg(test)]\nuse d;\ne";
    assert_eq!(without_test_items(code), "a;\n\n\n\n\nb;\n#[cfg(not(loom))]\nuse c;\n\n\ne");
}

#[test]
fn raw_identifiers_and_names_that_end_in_r_are_code() {
    assert_eq!(strip("let r#type = var\"s\"; for r in x {}"), "let r#type = var ; for r in x {}");
}
