//! Where the demo's text goes: a terminal, on which a panel is redrawn in place, or anything else,
//! which gets plain lines. ANSI sequences only.
//!
//! Between two drawings the cursor stands on an empty line above the panel. What others write
//! then (a warning, the terminal's own `^C`) stands there whole and is not counted against us: the
//! next panel is drawn below it.

use std::io::{self, IsTerminal, Write};

/// Standard output.
pub(super) struct Screen {
    is_terminal: bool,
    panel_lines: usize,
}

impl Screen {
    /// Looks what standard output is.
    pub(super) fn new() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { is_terminal: io::stdout().is_terminal() && !is_dumb, panel_lines: 0 }
    }

    /// Whether panels can be drawn.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Draws a panel over the last one.
    pub(super) fn draw(&mut self, panel: &[String]) {
        if panel.is_empty() {
            return;
        }
        say(&drawing(panel));
        self.panel_lines = panel.len();
    }

    /// Leaves the last panel where it is and goes on below it.
    pub(super) fn leave_panel(&mut self) {
        if self.panel_lines > 0 {
            say(&format!("\x1b[{}B\n", self.panel_lines));
            self.panel_lines = 0;
        }
    }
}

/// Writes text that stays. In one piece, so that nobody else's comes between.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that has gone away has seen enough; the node runs on.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Erases from the cursor on, draws below it and comes back. Lines longer than the terminal is
/// wide are cut by it: a wrapped one would make the way back longer than known.
fn drawing(panel: &[String]) -> String {
    let lines: String = panel.iter().flat_map(|line| ["\n", line]).collect();
    format!("\r\x1b[J\x1b[?7l{lines}\x1b[?7h\x1b[{}A\r", panel.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_ends_where_it_began() {
        let drawn = drawing(&["one".to_owned(), "two".to_owned()]);
        assert_eq!(drawn.matches('\n').count(), 2);
        assert!(drawn.ends_with("\x1b[2A\r"), "{drawn:?}");
    }
}
