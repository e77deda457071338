//! The hub: which channels and users an app has, and how an event reaches them.
//!
//! Nothing here knows a socket: workers own connections, the hub only fills their mailboxes.

pub mod channel;
mod directory;
pub mod members;
mod users;

pub use directory::{Directory, Overloaded, Publish, Subscribed};
pub use users::{IsChanged, Users};
