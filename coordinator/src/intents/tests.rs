//! Intentions, table by table: what comes in, what is to be done.

use super::*;
use proptest::prelude::*;
use slice_proto::ids::ServerId;

const AGE: u64 = 30;

fn intent(file: u64, epoch: u64) -> Intent {
    Intent {
        kind: IntentKind::Remove,
        file: FileId(file),
        epoch: Epoch(epoch),
        size: 0,
        reach: 1 << 20,
        owner: ServerId(1),
    }
}

fn log(file: u64, now_ns: u64, next: u64) -> Event {
    Event::Log { intent: intent(file, 1), now_ns, next }
}

fn logged(id: u64, logged_ns: u64, file: u64) -> Command {
    Command::Append(Entry::Logged { id: IntentionId(id), logged_ns, intent: intent(file, 1) })
}

fn answer(id: u64, record: u64) -> Command {
    Command::Answer { id: IntentionId(id), record }
}

fn completed(ids: &[u64]) -> Command {
    Command::Append(Entry::Completed(ids.iter().copied().map(IntentionId).collect()))
}

fn ids(ids: &[u64]) -> Vec<IntentionId> {
    ids.iter().copied().map(IntentionId).collect()
}

/// Feeds the events and compares the commands of each.
fn walk(script: Vec<(&str, Event, Vec<Command>)>) -> Intents {
    let mut intents = Intents::default();
    for (what, event, expected) in script {
        assert_eq!(intents.on(event, AGE), expected, "{what}");
    }
    intents
}

#[test]
fn logged_and_completed() {
    let end = walk(vec![
        ("a new one is appended and answered", log(7, 100, 1), vec![logged(1, 100, 7), answer(1, 1)]),
        ("the same again gets the same id", log(7, 110, 2), vec![answer(1, 1)]),
        ("another file, another id", log(8, 110, 2), vec![logged(2, 110, 8), answer(2, 2)]),
        ("completed once", Event::Complete(ids(&[1, 99])), vec![completed(&[1])]),
        ("completed twice is nothing", Event::Complete(ids(&[1])), vec![]),
        ("logged after completion is a new one", log(7, 120, 4), vec![logged(4, 120, 7), answer(4, 4)]),
    ]);
    assert_eq!((end.open(), end.oldest_ns(), end.first_record()), (2, Some(110), Some(2)));
}

#[test]
fn kinds_that_nobody_rolls_on_are_refused() {
    for kind in [IntentKind::MirroredWrite, IntentKind::MoveSite] {
        let event = Event::Log { intent: Intent { kind, ..intent(7, 1) }, now_ns: 0, next: 1 };
        assert_eq!(Intents::default().on(event, AGE), vec![Command::Refuse(Refusal::Kind)]);
    }
}

#[test]
fn a_truncate_and_a_remove_of_one_epoch_are_two() {
    let mut intents = Intents::default();
    intents.on(log(7, 0, 1), AGE);
    let truncate = Intent { kind: IntentKind::Truncate, ..intent(7, 1) };
    let commands = intents.on(Event::Log { intent: truncate, now_ns: 0, next: 2 }, AGE);
    assert_eq!(commands.last(), Some(&answer(2, 2)));
}

#[test]
fn the_aged_are_taken_over() {
    let take = |id, file| Command::TakeOver(IntentionId(id), intent(file, 1));
    walk(vec![
        ("logged at 100", log(7, 100, 1), vec![logged(1, 100, 7), answer(1, 1)]),
        ("logged at 110", log(8, 110, 2), vec![logged(2, 110, 8), answer(2, 2)]),
        ("too young", Event::Tick { now_ns: 129 }, vec![]),
        ("one is due", Event::Tick { now_ns: 130 }, vec![take(1, 7)]),
        ("not twice", Event::Tick { now_ns: 131 }, vec![]),
        ("it fails", Event::Failed { id: IntentionId(1), now_ns: 135 }, vec![]),
        ("the other is due, the first rests", Event::Tick { now_ns: 141 }, vec![take(2, 8)]),
        ("its owner was only slow", Event::Complete(ids(&[2])), vec![completed(&[2])]),
        ("our own end of it is nothing new", Event::TookOver(IntentionId(2)), vec![]),
        ("the first has rested", Event::Tick { now_ns: 135 + RETRY_NS }, vec![take(1, 7)]),
        ("done", Event::TookOver(IntentionId(1)), vec![completed(&[1])]),
        ("nothing left", Event::Tick { now_ns: u64::MAX }, vec![]),
    ]);
}

#[test]
fn when_to_look_again() {
    let mut intents = Intents::default();
    assert_eq!(intents.next_due_ns(), None);
    intents.on(log(7, 100, 1), AGE);
    assert_eq!(intents.next_due_ns(), Some(130));
    intents.on(Event::Tick { now_ns: 130 }, AGE);
    assert_eq!(intents.next_due_ns(), None);
    intents.on(Event::Failed { id: IntentionId(1), now_ns: 140 }, AGE);
    assert_eq!(intents.next_due_ns(), Some(140 + RETRY_NS));
}

#[test]
fn only_so_many_at_a_time_and_only_so_many_open() {
    let mut intents = Intents::default();
    for i in 1..=MAX_OPEN as u64 {
        assert_eq!(intents.on(log(i, 0, i), AGE).len(), 2);
    }
    assert_eq!(intents.on(log(u64::MAX, 0, 1 << 20), AGE), vec![Command::Refuse(Refusal::Full)]);
    assert_eq!(intents.on(Event::Tick { now_ns: AGE }, AGE).len(), MAX_TAKE_OVERS);
    assert_eq!(intents.on(Event::Tick { now_ns: AGE }, AGE).len(), 0);
    intents.on(Event::TookOver(IntentionId(1)), AGE);
    assert_eq!(intents.on(Event::Tick { now_ns: AGE }, AGE).len(), 1);
}

#[test]
fn carried_forward_with_id_and_age() {
    walk(vec![
        ("first", log(7, 100, 1), vec![logged(1, 100, 7), answer(1, 1)]),
        ("second", log(8, 110, 2), vec![logged(2, 110, 8), answer(2, 2)]),
        ("only what is old", Event::Carry { below: 2, next: 3 }, vec![logged(1, 100, 7)]),
        ("asked again: the new record is waited for", log(7, 120, 4), vec![answer(1, 3)]),
        ("nothing more to carry", Event::Carry { below: 2, next: 4 }, vec![]),
    ]);
}

#[test]
fn recovered_ones_are_due_at_once() {
    let mut intents = Intents::default();
    let entry = |id: u64, file| Entry::Logged { id: IntentionId(id), logged_ns: 5, intent: intent(file, 1) };
    intents.recover(1, entry(1, 7), 5);
    intents.recover(2, entry(2, 8), 5);
    intents.recover(3, Entry::Completed(ids(&[1])), 5);
    // Carried forward: the same id in a later record.
    intents.recover(4, entry(2, 8), 5);
    assert_eq!((intents.open(), intents.first_record()), (1, Some(4)));
    let commands = intents.on(Event::Tick { now_ns: 5 }, AGE);
    assert_eq!(commands, vec![Command::TakeOver(IntentionId(2), intent(8, 1))]);
}

#[test]
fn one_from_a_clock_that_was_ahead_is_due_at_once_too() {
    let mut intents = Intents::default();
    let entry = Entry::Logged { id: IntentionId(1), logged_ns: u64::MAX, intent: intent(7, 1) };
    intents.recover(1, entry, 5);
    assert_eq!(intents.oldest_ns(), Some(5));
    assert_eq!(
        intents.on(Event::Tick { now_ns: 5 }, AGE),
        vec![Command::TakeOver(IntentionId(1), intent(7, 1))]
    );
}

/// What the log says at any time is what the state is.
#[derive(Debug, Clone)]
enum Step {
    Log(u64),
    Complete(u64),
    Carry(u64),
    Tick(u64),
    TookOver(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..6).prop_map(Step::Log),
        (1u64..40).prop_map(Step::Complete),
        (1u64..40).prop_map(Step::Carry),
        (0u64..100).prop_map(Step::Tick),
        (1u64..40).prop_map(Step::TookOver),
    ]
}

proptest! {
    #[test]
    fn replaying_the_log_gives_the_state(steps in proptest::collection::vec(step(), 0..60)) {
        let mut intents = Intents::default();
        let mut records: Vec<Entry> = Vec::new();
        for (now_ns, s) in (0u64..).zip(steps) {
            let next = records.len() as u64 + 1;
            let event = match s {
                Step::Log(file) => log(file, now_ns, next),
                Step::Complete(id) => Event::Complete(ids(&[id])),
                Step::Carry(below) => Event::Carry { below, next },
                Step::Tick(now_ns) => Event::Tick { now_ns },
                Step::TookOver(id) => Event::TookOver(IntentionId(id)),
            };
            for command in intents.on(event, AGE) {
                if let Command::Append(entry) = command {
                    records.push(entry);
                }
            }
            // What is needed no more is gone from the log.
            let from = intents.first_record().unwrap_or(u64::MAX);
            let mut replayed = Intents::default();
            for (sequence, entry) in (1..).zip(&records).filter(|(s, _)| *s >= from) {
                replayed.recover(sequence, entry.clone(), u64::MAX);
            }
            let facts = |i: &Intents| i.open.iter()
                .map(|(id, o)| (*id, o.record, o.logged_ns, o.intent.clone())).collect::<Vec<_>>();
            prop_assert_eq!(facts(&replayed), facts(&intents));
        }
    }
}
