//! Three nodes over loopback: joining, hearing, dying, leaving.
