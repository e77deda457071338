//! The faults, one file each.

pub mod cap;
pub mod churn;
pub mod damage;
pub mod drain;
pub mod full;
pub mod generation;
pub mod herd;
pub mod kill;
pub mod nodes;
pub mod purge;
pub mod rollback;
pub mod slow;
pub mod soak;
pub mod stop;
pub mod trim;
