//! The limit of open files, raised at start: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Asked for where the system names no upper bound.
const PLENTY: u64 = 1_048_576;
/// Below this a server is surprised by its first busy hour.
pub const FEW: u64 = 10_000;

/// The limit before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    pub was: u64,
    pub is: u64,
}

/// Raises the soft limit to the hard one. Failing leaves it as it was: the banner shows what it is.
pub fn raise() -> DescriptorLimit {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let was = current.unwrap_or(PLENTY);
    let wanted = maximum.unwrap_or(PLENTY).max(was);
    let raised =
        wanted > was && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok();
    DescriptorLimit { was, is: if raised { wanted } else { was } }
}
