//! What a node tells all others about itself. Pure.
//!
//! Every node owns its own values and nobody writes another's. A node of another version may
//! send fields that this one does not know, and leave out some that it does.

mod codec;
mod shapes;

pub use codec::{KEYS_MAX, TEXT_BYTES_MAX, decode, encode};
pub use shapes::{
    About, ConfigurationMark, LimitUse, Load, NodeValues, ProviderTraffic, Rest, ToldFigures, ToldRow, TrafficRow,
};
