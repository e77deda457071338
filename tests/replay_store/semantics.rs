//! Serials, generations, reading, purging and skipping.

use tidewire::replay::store::{Append, Appended, Content, Direction, Entry, Range, Store};
use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::{Generation, Reason};

use super::support::{
    ALL, EVERYTHING, HOUR, MINUTE, T0, append, append_one, content, directory, fill, floor, head, image,
    keyed, message, messages, on_every_engine, open, read, resolve, serials, stamp, stream,
};

on_every_engine!(
    serials_are_contiguous_in_each_stream,
    a_message_is_read_back_as_it_was_stored,
    time_never_goes_back_in_a_stream,
    a_stream_nobody_published_to_has_a_position,
    pages_go_both_ways,
    a_page_has_one_message_at_least,
    purged_messages_are_gone_and_serials_go_on,
    a_purge_of_everything_leaves_the_head,
    a_skip_expires_every_position_before_it,
    two_skips_in_a_row_are_told_apart,
    a_stream_may_begin_with_a_skip,
    streams_do_not_mix,
);

fn serials_are_contiguous_in_each_stream(store: &dyn Store) {
    let (one, two) = (stream("one"), stream("two"));
    let batch =
        [message(&one, "a"), message(&two, "b"), message(&one, "c"), message(&one, "d"), message(&two, "e")];
    let appended = store.append(&batch, T0).expect("stored");
    let serials: Vec<u64> = appended.iter().map(|one| stamp(*one).position.serial).collect();
    assert_eq!(serials, [1, 1, 2, 3, 2]);
    assert_eq!(append(store, &one, "f", T0).position.serial, 4);
    assert_eq!((head(store, &one), head(store, &two)), (4, 2));
    let begins: Vec<bool> = appended.iter().map(|one| stamp(*one).begins_generation).collect();
    assert_eq!(begins, [true, true, false, false, false]);
    let totals: Vec<u64> = messages(store, &one).iter().map(|message| message.stamp.total_bytes).collect();
    let size = content("a").size();
    assert_eq!(totals, [size, 2 * size, 3 * size, 4 * size]);
}

fn a_message_is_read_back_as_it_was_stored(store: &dyn Store) {
    let stream = stream("presence-é\u{1F980}");
    let full = Content {
        id: Some("ord-77".into()),
        event: "client-\u{0}typing".into(),
        data: "\"{\\\"a\\\":\u{1F980}}\"".into(),
        user_id: Some("7".into()),
        except: Some(u64::MAX - 1),
    };
    let empty =
        Content { id: None, event: "".into(), data: "\"\"".into(), user_id: Some("".into()), except: None };
    let large = content(&"x".repeat(300_000));
    let mut stamps = Vec::new();
    for content in [&full, &empty, &large] {
        let append = Append { content: content.clone(), ..message(&stream, "") };
        stamps.push(stamp(append_one(store, &append, T0 + 5)));
    }
    let read = messages(store, &stream);
    assert_eq!(read.iter().map(|message| message.stamp).collect::<Vec<_>>(), stamps);
    assert_eq!(read.into_iter().map(|message| message.content).collect::<Vec<_>>(), [full, empty, large]);
    assert_eq!(stamps[0].time_ms, T0 + 5);
}

fn time_never_goes_back_in_a_stream(store: &dyn Store) {
    let (one, two) = (stream("one"), stream("two"));
    assert_eq!(append(store, &one, "", T0 + 10).time_ms, T0 + 10);
    assert_eq!(append(store, &one, "", T0 + 3).time_ms, T0 + 10);
    assert_eq!(append(store, &one, "", T0 + 11).time_ms, T0 + 11);
    assert_eq!(append(store, &two, "", T0 + 4).time_ms, T0 + 4);
}

fn a_stream_nobody_published_to_has_a_position(store: &dyn Store) {
    let unknown = stream("unknown");
    let position = store.position(&unknown);
    assert_eq!(position.serial, 0);
    let bounds = store.bounds(&unknown, &EVERYTHING, T0).expect("bounds");
    assert_eq!((bounds.base, bounds.floor, bounds.head), (0, 1, 0));
    assert_eq!(bounds.position(), position);
    assert_eq!(serials(store, &unknown, ALL), [0u64; 0]);
    assert_eq!(store.first_since(&unknown, 0), Ok(1));
    assert_eq!(store.purge(&unknown, 7, T0), Ok(()));
    assert_eq!(resolve(store, &unknown, position), Ok(()));
    // Whoever was there before the first message has missed nothing.
    fill(store, &unknown, 3, T0);
    assert_eq!(resolve(store, &unknown, position), Ok(()));
    assert_eq!(store.position(&unknown).epoch, position.epoch);
}

fn pages_go_both_ways(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 10, T0);
    let page = |after, before, direction, max_messages| {
        serials(store, &stream, Range { after, before, direction, max_messages, max_bytes: u64::MAX })
    };
    let forward = Direction::Forward;
    let backward = Direction::Backward;
    assert_eq!(page(0, u64::MAX, forward, 3), [1, 2, 3]);
    assert_eq!(page(3, u64::MAX, forward, 3), [4, 5, 6]);
    assert_eq!(page(8, u64::MAX, forward, 3), [9, 10]);
    assert_eq!(page(10, u64::MAX, forward, 3), [0u64; 0]);
    assert_eq!(page(u64::MAX, u64::MAX, forward, 3), [0u64; 0]);
    assert_eq!(page(2, 5, forward, 9), [3, 4]);
    assert_eq!(page(2, 3, forward, 9), [0u64; 0]);
    assert_eq!(page(7, 3, forward, 9), [0u64; 0]);
    assert_eq!(page(0, u64::MAX, backward, 3), [10, 9, 8]);
    assert_eq!(page(0, 8, backward, 3), [7, 6, 5]);
    assert_eq!(page(6, 9, backward, 9), [8, 7]);
    assert_eq!(page(0, 1, backward, 9), [0u64; 0]);
    assert_eq!(page(0, 0, backward, 9), [0u64; 0]);
    assert_eq!(page(0, u64::MAX, forward, 0), [0u64; 0]);
}

fn a_page_has_one_message_at_least(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 4, T0);
    let size = content("1").size();
    let page = |max_bytes, direction| serials(store, &stream, Range { max_bytes, direction, ..ALL });
    assert_eq!(page(0, Direction::Forward), [1]);
    assert_eq!(page(0, Direction::Backward), [4]);
    assert_eq!(page(2 * size - 1, Direction::Forward), [1]);
    assert_eq!(page(2 * size, Direction::Forward), [1, 2]);
    assert_eq!(page(3 * size, Direction::Backward), [4, 3, 2]);
}

fn purged_messages_are_gone_and_serials_go_on(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 10, T0);
    let before = store.position(&stream);
    assert_eq!(store.purge(&stream, 5, T0), Ok(()));
    assert_eq!(serials(store, &stream, ALL), [5, 6, 7, 8, 9, 10]);
    assert_eq!(floor(store, &stream, &EVERYTHING, T0), 5);
    assert_eq!(store.first_since(&stream, 0), Ok(5));
    assert_eq!(store.position(&stream), before);
    // It never goes back.
    assert_eq!(store.purge(&stream, 3, T0), Ok(()));
    assert_eq!(floor(store, &stream, &EVERYTHING, T0), 5);
    let stamp = append(store, &stream, "11", T0);
    assert_eq!((stamp.position.serial, stamp.begins_generation), (11, false));
    assert_eq!(resolve(store, &stream, Position { serial: 4, ..before }), Ok(()));
    assert_eq!(resolve(store, &stream, Position { serial: 3, ..before }), Err(Reason::Expired));
}

fn a_purge_of_everything_leaves_the_head(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 3, T0);
    assert_eq!(store.purge(&stream, u64::MAX, T0), Ok(()));
    assert_eq!(serials(store, &stream, ALL), [0u64; 0]);
    let bounds = store.bounds(&stream, &EVERYTHING, T0).expect("bounds");
    assert_eq!((bounds.floor, bounds.head), (4, 3));
    assert_eq!(resolve(store, &stream, bounds.position()), Ok(()));
    assert_eq!(append(store, &stream, "4", T0).position.serial, 4);
    assert_eq!(serials(store, &stream, ALL), [4]);
}

fn a_skip_expires_every_position_before_it(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 3, T0);
    let before = store.position(&stream);
    store.skip(&stream);
    let after = store.position(&stream);
    assert_eq!(after.epoch.generation, before.epoch.generation + 1);
    assert_eq!(resolve(store, &stream, before), Err(Reason::Expired));
    assert_eq!(resolve(store, &stream, after), Ok(()));
    assert_eq!(serials(store, &stream, ALL), [0u64; 0]);
    let stamp = append(store, &stream, "next", T0);
    assert!(stamp.begins_generation);
    assert_eq!(stamp.position, Position { epoch: after.epoch, serial: after.serial + 1 });
    assert_eq!(resolve(store, &stream, before), Err(Reason::Expired));
    assert_eq!(resolve(store, &stream, after), Ok(()));
    assert_eq!(messages(store, &stream)[0].stamp, stamp);
}

fn two_skips_in_a_row_are_told_apart(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 3, T0);
    store.skip(&stream);
    let between = store.position(&stream);
    store.skip(&stream);
    assert_eq!(resolve(store, &stream, between), Err(Reason::Expired));
    let after = store.position(&stream);
    let stamp = append(store, &stream, "next", T0);
    assert!(stamp.begins_generation);
    assert_eq!(stamp.position.serial, after.serial + 1);
    assert_eq!(resolve(store, &stream, between), Err(Reason::Expired));
    assert_eq!(resolve(store, &stream, after), Ok(()));
}

fn a_stream_may_begin_with_a_skip(store: &dyn Store) {
    let stream = stream("orders");
    let before = store.position(&stream);
    store.skip(&stream);
    assert_eq!(resolve(store, &stream, before), Err(Reason::Expired));
    let after = store.position(&stream);
    assert_eq!(resolve(store, &stream, after), Ok(()));
    fill(store, &stream, 2, T0);
    assert_eq!(resolve(store, &stream, before), Err(Reason::Expired));
    assert_eq!(resolve(store, &stream, after), Ok(()));
}

fn streams_do_not_mix(store: &dyn Store) {
    let pairs = [("4", "2a"), ("42", "a"), ("42", "A"), ("42", "a ")];
    for (app, channel) in pairs {
        let stream = super::support::stream_of(app, channel);
        append(store, &stream, &format!("{app}/{channel}"), T0);
    }
    for (app, channel) in pairs {
        let read = messages(store, &super::support::stream_of(app, channel));
        assert_eq!(read.len(), 1);
        assert_eq!(*read[0].content.data, format!("\"{app}/{channel}\""));
    }
}

#[test]
fn after_a_clean_end_all_is_as_before() {
    let directory = directory();
    let orders = stream("orders");
    let store = open(directory.path(), T0);
    fill(&store, &orders, 5, T0);
    store.purge(&orders, 3, T0).expect("purged");
    let (position, unknown) = (store.position(&orders), store.position(&stream("unknown")));
    store.close().expect("closed");
    let refused = store.append(&[message(&orders, "")], T0);
    assert!(refused.is_err());
    drop(store);
    let store = open(directory.path(), T0 + MINUTE);
    assert_eq!(store.position(&orders), position);
    assert_eq!(store.position(&stream("unknown")), unknown);
    assert_eq!(serials(&store, &orders, ALL), [3, 4, 5]);
    let stamp = append(&store, &orders, "6", T0 + MINUTE);
    assert_eq!(stamp.position, Position { serial: 6, ..position });
    assert!(!stamp.begins_generation);
}

#[test]
fn after_an_unclean_end_a_generation_begins_with_the_next_message() {
    let directory = directory();
    let orders = stream("orders");
    let store = open(directory.path(), T0);
    fill(&store, &orders, 5, T0);
    let before = store.position(&orders);
    let image = image(directory.path());
    drop(store);
    let store = open(image.path(), T0);
    // Nothing was lost, so nobody has to start anew.
    assert_eq!(store.position(&orders), before);
    let unknown = store.position(&stream("unknown"));
    assert_eq!(unknown.epoch.generation, before.epoch.generation + 1);
    assert_ne!(unknown.epoch.nonce, before.epoch.nonce, "a position of another channel is no good here");
    let stamp = append(&store, &orders, "6", T0);
    assert!(stamp.begins_generation);
    let epoch = Epoch { generation: unknown.epoch.generation, ..before.epoch };
    assert_eq!(stamp.position, Position { epoch, serial: 6 });
    assert_eq!(resolve(&store, &orders, before), Ok(()));
    let lost = Position { serial: 6, ..before };
    assert_eq!(resolve(&store, &orders, lost), Err(Reason::RolledBack));
    let bounds = store.bounds(&orders, &EVERYTHING, T0).expect("bounds");
    assert_eq!(
        bounds.generations,
        [
            Generation { number: before.epoch.generation, start: 1 },
            Generation { number: unknown.epoch.generation, start: 6 }
        ]
    );
    let epochs: Vec<u32> = messages(&store, &orders)
        .iter()
        .map(|message| message.stamp.position.epoch.generation - before.epoch.generation)
        .collect();
    assert_eq!(epochs, [0, 0, 0, 0, 0, 1]);
}

#[test]
fn generations_and_floors_are_remembered_over_slices() {
    let directory = directory();
    let orders = stream("orders");
    let mut now_ms = T0;
    for boot in 0..70 {
        let store = open(directory.path(), now_ms);
        fill(&store, &orders, 1, now_ms);
        if boot == 50 {
            store.purge(&orders, 10, now_ms).expect("purged");
        }
        now_ms += 10 * MINUTE;
        store.maintain(now_ms).expect("maintained");
        // Not closed: the next begins a generation.
    }
    let store = open(directory.path(), now_ms);
    let bounds = store.bounds(&orders, &EVERYTHING, now_ms).expect("bounds");
    assert_eq!((bounds.floor, bounds.head), (10, 70));
    // The oldest six are forgotten.
    let numbers: Vec<u32> = bounds.generations.iter().map(|one| one.number).collect();
    assert_eq!(numbers, (7..=70).collect::<Vec<_>>());
    assert!(bounds.generations.iter().all(|one| u64::from(one.number) == one.start));
    assert_eq!(serials(&store, &orders, ALL), (10..=70).collect::<Vec<_>>());
}

#[test]
fn what_was_purged_is_erased_from_the_files() {
    let directory = directory();
    let orders = stream("orders");
    let secret = "s3cr3t-that-nobody-else-would-write";
    let store = open(directory.path(), T0);
    for slice in 0..3 {
        let now_ms = T0 + slice * 2 * HOUR;
        store.maintain(now_ms).expect("maintained");
        for _ in 0..700 {
            append(&store, &orders, secret, now_ms);
        }
    }
    append(&store, &orders, "kept", T0 + 6 * HOUR);
    let head = head(&store, &orders);
    store.purge(&orders, head, T0 + 6 * HOUR).expect("purged");
    super::support::wait_until("all is erased", || store.is_at_rest());
    store.close().expect("closed");
    drop(store);
    for name in super::support::files(directory.path(), "", "") {
        let bytes = std::fs::read(directory.path().join(&name)).expect("it is read");
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{name} still has it");
    }
    let store = open(directory.path(), T0 + 6 * HOUR);
    assert_eq!(serials(&store, &orders, ALL), [head]);
}

#[test]
fn a_skip_survives_a_restart() {
    for is_clean in [true, false] {
        let directory = directory();
        let orders = stream("orders");
        let store = open(directory.path(), T0);
        fill(&store, &orders, 3, T0);
        let before = store.position(&orders);
        store.skip(&orders);
        let after = store.position(&orders);
        if is_clean {
            store.close().expect("closed");
        } else {
            store.maintain(T0).expect("maintained");
        }
        drop(store);
        let store = open(directory.path(), T0);
        assert_eq!(store.position(&orders), after);
        assert_eq!(resolve(&store, &orders, before), Err(Reason::Expired));
        assert_eq!(resolve(&store, &orders, after), Ok(()));
        let stamp = append(&store, &orders, "next", T0);
        assert_eq!(stamp.position.serial, after.serial + 1);
        assert_eq!(resolve(&store, &orders, after), Ok(()));
    }
}

#[test]
fn a_skip_that_was_not_saved_spoils_every_position() {
    let directory = directory();
    let orders = stream("orders");
    let store = open(directory.path(), T0);
    fill(&store, &orders, 3, T0);
    let before = store.position(&orders);
    store.skip(&orders);
    let image = image(directory.path());
    let store = open(image.path(), T0);
    assert_ne!(store.position(&orders).epoch.nonce, before.epoch.nonce);
    assert_eq!(resolve(&store, &orders, before), Err(Reason::StreamReset));
    assert_eq!(serials(&store, &orders, ALL), [1, 2, 3]);
}

/// `skip` is called for every message that finds no room, while deliveries wait.
#[test]
fn many_skips_cost_no_more_than_one() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let all: Vec<_> = (0..10).map(|number| stream(&format!("stream-{number}"))).collect();
    all.iter().for_each(|stream| fill(&store, stream, 3, T0));
    // What SQLite counts in the header of a database: its commits.
    let commits = || {
        let bytes = std::fs::read(directory.path().join("meta.db")).expect("it is read");
        u32::from_be_bytes(bytes[24..28].try_into().expect("four bytes"))
    };
    let (before, generation) = (commits(), store.position(&all[0]).epoch.generation);
    for _ in 0..20 {
        all.iter().for_each(|stream| store.skip(stream));
    }
    assert_eq!(commits(), before + 1);
    assert_eq!(store.position(&all[9]).epoch.generation, generation + 1);
}

#[test]
fn an_entry_says_its_serial() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let orders = stream("orders");
    fill(&store, &orders, 1, T0);
    assert_eq!(read(&store, &orders, ALL)[0].serial(), 1);
    assert_eq!(Entry::Unreadable { serial: 9 }.serial(), 9);
    let repeat = [keyed(&orders, "k", "2"), keyed(&orders, "k", "2")];
    let appended = store.append(&repeat, T0).expect("stored");
    assert_eq!(appended[1], Appended::Repeat(stamp(appended[0]).position));
}
