//! Where `env.` and `file:` references are looked up, with bounds on what is read.

use shared::config::model::Origin;
use shared::secret::Secret;
use std::fs::File;
use std::io::{self, Read};
use zeroize::Zeroizing;

/// Largest file that a reference may name, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A variable of the environment, where it is text.
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A text file, up to 1 MiB.
pub fn file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        drop(Zeroizing::new(text));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is longer than 1 MiB"));
    }
    Ok(text)
}

/// The text that an origin stands for now; `None` for a literal, what is sealed, and for what is not there.
pub fn resolve(origin: &Origin) -> Option<Secret> {
    let text = match origin {
        Origin::Literal | Origin::Sealed => return None,
        Origin::Env(name) => Zeroizing::new(env(name)?),
        Origin::File(path) => Zeroizing::new(file(path).ok()?),
    };
    let line = match origin {
        // Editors and mounted secrets end files with a newline that is not part of the text.
        Origin::File(_) => text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)),
        _ => None,
    };
    let line = line.unwrap_or(&text);
    (!line.is_empty()).then(|| Secret::new(line))
}
