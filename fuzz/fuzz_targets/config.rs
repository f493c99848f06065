//! Any text as a configuration: `load` answers, and what it answers can be printed.
#![no_main]

use shared::config::{Sources, load};

libfuzzer_sys::fuzz_target!(|text: &str| {
    match load(text, &Sources::none()) {
        Ok(loaded) => drop(format!("{loaded:?}")),
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal says why");
            for fault in faults {
                assert!(!fault.to_string().contains('\n'), "a fault is one line");
            }
        }
    }
});
