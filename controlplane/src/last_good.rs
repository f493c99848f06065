//! l
mod frame;
mod seal;
