//! The daemon, as people run it, in networks of the tests' own.

mod namespaces;
#[cfg_attr(not(feature = "relay"), allow(dead_code, reason = "some of it is for relays alone"))]
mod nodes;
mod relayed;
#[cfg_attr(not(feature = "relay"), allow(dead_code, reason = "some of it is for relays alone"))]
mod spaces;
