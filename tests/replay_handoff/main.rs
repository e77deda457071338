//! Random schedules of the hand-off between the log and live delivery: whatever is interleaved with whatever, each
//! client gets every message once and in order, and is told of a gap exactly when there is one.
//!
//! The channel, its ring, the mailbox and the followers are the server's own; the store, the worker and the sockets
//! around them are a few lines here, so that a hundred thousand schedules take seconds.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

mod world;

use proptest::prelude::*;
use world::World;

/// In all tests of this file together.
const CASES: u32 = 100_000;
/// Run side by side.
const PARTS: u32 = 4;

/// Each number pair is a step: what happens, and to whom or how much.
fn check(steps: &[(u8, u8)]) {
    let mut world = World::default();
    for (what, which) in steps {
        world.step(*what, *which);
    }
    world.settle();
}

macro_rules! schedules {
    ($($name:ident)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: CASES / PARTS, failure_persistence: None, ..ProptestConfig::default() })]
            $(#[test]
            fn $name(steps in prop::collection::vec(any::<(u8, u8)>(), 1..120)) {
                check(&steps);
            })*
        }
    };
}

schedules! { schedules_1 schedules_2 schedules_3 schedules_4 }

#[test]
fn the_schedules_meet_every_situation() {
    let mut seen = [0; 7];
    // From a generator that needs no seed to be kept.
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..5_000 {
        let mut world = World::default();
        for _ in 0..120 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            world.step((random >> 33) as u8, (random >> 41) as u8);
        }
        world.settle();
        seen = std::array::from_fn(|index| seen[index] + world.seen.all()[index]);
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
