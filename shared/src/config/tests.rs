//! What loads, what does not, and where the faults stand.

mod examples;
mod properties;
mod refusals;
mod routing;

use std::io;

use super::{Fault, Loaded, Sources, load};

/// An environment with two variables and a disk with one file.
pub(super) fn sources() -> Sources<'static> {
    Sources {
        env: &|name| match name {
            "OPENAI_API_KEY" => Some("sk-from-environment".to_owned()),
            "PORT" => Some("9090".to_owned()),
            _ => None,
        },
        file: &|path| match path {
            "/run/key" => Ok("sk-from-file\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
        ..Sources::none()
    }
}

/// Sources in which every reference leads somewhere that fits.
pub(super) fn everything() -> Sources<'static> {
    Sources {
        env: &|_| Some("sk-bf-0123456789abcdef".to_owned()),
        file: &|path| {
            Ok(if path.contains("-ca.") {
                "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned()
            } else {
                "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n".to_owned()
            })
        },
        ..Sources::none()
    }
}

#[track_caller]
pub(super) fn loaded(text: &str) -> Loaded {
    load(text, &sources()).unwrap_or_else(|faults| panic!("{}", lines(&faults)))
}

#[track_caller]
pub(super) fn refused(text: &str) -> Vec<Fault> {
    load(text, &sources()).expect_err("a configuration that is refused")
}

pub(super) fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
