//! Placeholder replaced below.
pub(crate) fn run(_nodes: usize, _limits: usize) -> bool {
    true
}
