//! Random schedules against the model.
//!
//! After every step Redis has what the model has, the topics told exactly what changed, and a replica that applies the
//! changes has the members.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tidewire::fanout::keys::partition;
use tidewire::fanout::redis::lease::Session;
use tidewire::fanout::redis::state::{Synced, Transition, Update, UserSynced, UserTransition};

use crate::model::{CHANNELS, Change, Model, Replica, SESSIONS, USERS};
use crate::support::{APP, Ear, Heard, Node, World, json, short};

const STEPS: usize = 250;

struct Run {
    world: World,
    node: Node,
    ear: Ear,
    sessions: Vec<Session>,
    dead: Vec<Session>,
    model: Model,
    replicas: BTreeMap<&'static str, Replica>,
}

#[test]
fn redis_has_what_a_model_has_after_every_step() {
    let world = World::start();
    let mut run = Run {
        node: world.node(),
        ear: world.ear(),
        world,
        sessions: Vec::new(),
        dead: Vec::new(),
        model: Model::default(),
        replicas: BTreeMap::new(),
    };
    for seed in 0..6 {
        println!("seed {seed}");
        let _: () = redis::cmd("FLUSHALL").query(&mut run.world.redis).expect("it is empty");
        run.sessions = (0..SESSIONS).map(|_| Session::draw()).collect();
        (run.model, run.replicas) = Default::default();
        let mut random = StdRng::seed_from_u64(seed);
        for step in 0..STEPS {
            println!("step {step}");
            run.step(&mut random);
            run.check();
        }
    }
}

impl Run {
    fn step(&mut self, random: &mut StdRng) {
        let session = random.random_range(0..SESSIONS);
        match random.random_range(0..20) {
            0..13 => self.change(session, &Change::draw(random), random.random_ratio(1, 4)),
            13..17 => self.sign(session, USERS.choose(random).expect("a user"), random.random()),
            17 => self.reap(session, random.random_range(0..3_000)),
            _ => self.write_as_dead(&Change::draw(random)),
        }
    }

    fn change(&mut self, session: usize, change: &Change, is_repeated: bool) {
        println!("{session} has {change:?}");
        let before = self.model.total(change.channel);
        let (told, refused) = self.model.apply(session, change);
        let total = self.model.total(change.channel);
        let transition = match (before, total) {
            (0, 1..) => Transition::Occupied,
            (1.., 0) => Transition::Vacated,
            _ => Transition::None,
        };
        let expect = |synced: Synced, transition: Transition| {
            let Synced::Done { total: told_total, transition: told, refused: told_refused, .. } = synced
            else {
                panic!("the session is dead")
            };
            assert_eq!((told_total, told), (total, transition));
            assert!(told_refused.iter().map(|id| &**id).eq(refused.iter().copied()), "{told_refused:?}");
        };
        expect(self.sync(&self.sessions[session], change), transition);
        if is_repeated {
            expect(self.sync(&self.sessions[session], change), Transition::None);
        }
        let heard = self.hear();
        assert_eq!(shorts(&heard), told);
    }

    fn sync(&self, session: &Session, change: &Change) -> Synced {
        let infos: Vec<_> = change.added.iter().map(|(id, info)| (*id, json(info))).collect();
        let added: Vec<_> = infos.iter().map(|(id, info)| (*id, info.as_deref())).collect();
        self.node.sync_as(
            session,
            Update {
                app: APP,
                channel: change.channel,
                count: change.count,
                announce: change.announce,
                max_members: change.max_members,
                removed: &change.removed,
                added: &added,
                ..Update::default()
            },
        )
    }

    fn sign(&mut self, session: usize, id: &'static str, is_signed_in: bool) {
        println!("{session} signs {id:?}: {is_signed_in}");
        let was_online = self.model.is_online(id);
        let signed_in = &mut self.model.sessions[session].signed_in;
        if is_signed_in {
            signed_in.insert(id)
        } else {
            signed_in.remove(id)
        };
        let (transition, told) = match (was_online, self.model.is_online(id)) {
            (false, true) => (UserTransition::Online, vec!["Online"]),
            (true, false) => (UserTransition::Offline, vec!["Offline"]),
            _ => (UserTransition::None, vec![]),
        };
        let synced = self.node.state.sync_user(&self.sessions[session], APP, id, is_signed_in);
        assert_eq!(self.node.wait(synced).expect("it is done"), UserSynced::Done { transition });
        assert_eq!(shorts(&self.hear()), told);
    }

    /// The session dies; whoever reaps it is cut off after a while, and somebody else goes on.
    fn reap(&mut self, session: usize, patience_us: u64) {
        println!("{session} dies");
        let dead = std::mem::replace(&mut self.sessions[session], Session::draw());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let patience = Duration::from_micros(patience_us);
        let reap = self.node.state.reap(&dead);
        let _ = runtime.block_on(async { tokio::time::timeout(patience, reap).await });
        self.node.wait(self.node.state.retire(&dead)).expect("it is reaped");
        let told = self.model.reap(session);
        let mut heard = shorts(&self.hear());
        heard.sort();
        assert_eq!(heard, told);
        self.dead.push(dead);
    }

    fn write_as_dead(&mut self, change: &Change) {
        let Some(dead) = self.dead.last() else { return };
        // The end of a run forgets fences.
        let fence = self.node.state.keys().fence(partition(APP, change.channel), &dead.0);
        if redis::cmd("EXISTS").arg(fence).query(&mut self.world.redis).expect("an answer") {
            assert_eq!(self.sync(dead, change), Synced::Dead);
        }
    }

    fn hear(&mut self) -> Vec<Heard> {
        let heard = self.ear.hear();
        for heard in &heard {
            let channel =
                CHANNELS.iter().find(|channel| heard.topic.ends_with(&format!("c:{APP}:{channel}")));
            if let Some(channel) = channel {
                self.replicas.entry(channel).or_default().apply(&heard.message);
            }
        }
        heard
    }

    fn check(&mut self) {
        let mut dump = self.world.dump();
        for channel in CHANNELS {
            let members = dump.get_mut(&self.node.state.keys().members(APP, channel));
            let version = members.and_then(|members| members.remove(""));
            let replica = self.replicas.entry(channel).or_default();
            if let Some(version) = version {
                assert_eq!(version, replica.version.to_string());
            }
            let known = self.model.members.get(channel).into_iter().flatten();
            let copied = replica.members.iter().map(|(id, info)| (&**id, &**info));
            assert!(known.map(|(id, info)| (*id, *info)).eq(copied), "{channel}: {replica:?}");
        }
        assert_eq!(dump, self.model.dump(&self.sessions));
    }
}

fn shorts(heard: &[Heard]) -> Vec<String> {
    heard.iter().map(|heard| short(&heard.message)).collect()
}
