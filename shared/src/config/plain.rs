//! A configuration's text as plain JSON: without comments, commas that end a list, and a byte order
//! mark. For texts that [`super::load`] has taken; what becomes of others is of no use to anybody.

use core::iter::Peekable;
use core::str::Bytes;

/// Holds whatever secrets the text holds.
pub fn plain_json(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // As long as the text at most, so that no half of a secret stays behind in memory.
    let mut plain = Vec::with_capacity(text.len());
    // A comma that nothing but blanks and comments has followed.
    let mut comma: Option<usize> = None;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' => {
                pass_comment(&mut bytes);
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'}' | b']' => {
                if let Some(comma) = comma.take().and_then(|at| plain.get_mut(at)) {
                    *comma = b' ';
                }
            }
            b',' => comma = Some(plain.len()),
            _ => comma = None,
        }
        plain.push(byte);
        if byte == b'"' {
            while let Some(byte) = bytes.next() {
                plain.push(byte);
                match byte {
                    b'"' => break,
                    b'\\' => plain.extend(bytes.next()),
                    _ => {}
                }
            }
        }
    }
    // Whole characters were taken out only: a comment begins and ends with ASCII.
    String::from_utf8(plain).unwrap_or_default()
}

/// The first slash was taken.
fn pass_comment(bytes: &mut Peekable<Bytes<'_>>) {
    match bytes.next() {
        Some(b'/') => while bytes.next_if(|byte| !matches!(byte, b'\n' | b'\r')).is_some() {},
        Some(b'*') => {
            let mut star_before = false;
            for byte in bytes {
                if star_before && byte == b'/' {
                    break;
                }
                star_before = byte == b'*';
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let blanks_away = |text: &str| text.replace([' ', '\n'], "");
        assert_eq!(blanks_away(&plain_json(text)), expected);
    }

    #[test]
    fn comments_and_last_commas_go_and_all_else_stays() {
        check("\u{feff}{\"a\": [1, 2, /* , ] */ ], // }\n \"b\": {},}", r#"{"a":[1,2],"b":{}}"#);
        check("{\"a\": 1, // ü\r\n}", "{\"a\":1\r}");
        check("/**//***/[]", "[]");
    }

    #[test]
    fn strings_stay_as_they_are() {
        for text in [r#"["//","/*","\"//",",]","\\"]"#, r#"{"ü":"http://h/*"}"#] {
            check(text, text);
        }
    }

    #[test]
    fn a_text_that_ends_too_early_ends_the_answer() {
        for text in ["/", "//", "/*", "/* *", "\"", "\"\\", "[1,", ""] {
            plain_json(text);
        }
    }
}
