//! Joining labels with predictions.

use super::*;

const BINARY: Form = Form::Class { n_scores: 1 };

fn answer(value: f64, score: f32) -> Prediction {
    Prediction { value, scores: SmallVec::from_slice(&[score]) }
}

fn one(value: f64) -> std::iter::Once<Prediction> {
    std::iter::once(answer(value, 0.25))
}

/// A table in which predictions have their places, as after the first label.
fn labelled_before(most: usize) -> Join {
    let mut join = Join::new(BINARY, most, 1_000);
    join.begin();
    join
}

#[test]
fn predictions_before_the_first_label_are_found_as_well() {
    let mut join = Join::new(BINARY, 100, 1_000);
    for i in 0..1_000_u32 {
        join.predicted(&i.to_le_bytes(), one(f64::from(i % 2)), u64::from(i));
    }
    assert!(join.entries.is_empty());
    assert_eq!((join.held, join.counts().waiting, join.counts().dropped), (100, 100, 900));
    join.expire(1_949);
    assert_eq!((join.held, join.counts().waiting, join.counts().expired), (51, 51, 49));
    let found = join.labelled(&951_u32.to_le_bytes(), 0, 1.0, 1_949);
    assert_eq!(found, Found::Joined(answer(1.0, 0.25)));
    // Not late: what left before the first label is not remembered.
    assert_eq!(join.labelled(&5_u32.to_le_bytes(), 0, 1.0, 1_949), Found::Waiting);
    assert_eq!((join.held, join.entries.len(), join.order.len()), (51, 51, 51));
    join.predicted(b"again", one(1.0), 1_950);
    assert_eq!(join.labelled(b"again", 0, 1.0, 1_950), Found::Joined(answer(1.0, 0.25)));
}

#[test]
fn labels_find_their_rows_once() {
    let mut join = Join::new(BINARY, 100, 1_000);
    let rows = (0..5).map(|i| answer(f64::from(i % 2), i as f32 / 5.0));
    assert_eq!(join.predicted(b"a", rows, 10), []);
    assert_eq!(join.labelled(b"a", 3, 1.0, 20), Found::Joined(answer(1.0, 0.6)));
    assert_eq!(join.labelled(b"a", 3, 1.0, 20), Found::Duplicate);
    assert_eq!(join.labelled(b"a", 0, 1.0, 20), Found::Joined(answer(0.0, 0.0)));
    assert_eq!(join.labelled(b"a", 5, 1.0, 20), Found::Unknown);
    assert_eq!(join.labelled(b"a", u32::MAX, 1.0, 20), Found::Unknown);
    let JoinCounts { predicted, joined, duplicate, unknown, waiting, .. } = join.counts();
    assert_eq!((predicted, joined, duplicate, unknown, waiting), (5, 2, 1, 2, 3));
}

#[test]
fn predictions_are_kept_whole_in_every_form() {
    for (form, prediction) in [
        (Form::Value, Prediction { value: -1.25e300, scores: SmallVec::new() }),
        (Form::Class { n_scores: 0 }, Prediction { value: 1023.0, scores: SmallVec::new() }),
        (BINARY, answer(1.0, 0.123_456_79)),
        // Several scores are kept as halves.
        (
            Form::Class { n_scores: 3 },
            Prediction { value: 2.0, scores: SmallVec::from_slice(&[0.25, 0.5, 0.25]) },
        ),
    ] {
        let mut join = Join::new(form, 100, 1_000);
        join.predicted(b"x", std::iter::once(prediction.clone()), 0);
        assert_eq!(join.labelled(b"x", 0, 0.0, 1), Found::Joined(prediction), "{form:?}");
    }
    let mut join = Join::new(BINARY, 100, 1_000);
    join.predicted(b"x", std::iter::once(answer(f64::NAN, 0.5)), 0);
    let Found::Joined(found) = join.labelled(b"x", 0, 0.0, 1) else { panic!("not joined") };
    assert!(found.value.is_nan());
}

#[test]
fn what_waited_too_long_is_late_and_what_never_came_unknown() {
    let mut join = labelled_before(100);
    join.predicted(b"a", one(1.0), 0);
    assert_eq!(join.labelled(b"b", 0, 1.0, 500), Found::Waiting);
    assert_eq!(join.labelled(b"a", 0, 1.0, 1_001), Found::Late);
    join.expire(500 + EARLY_FOR + 1);
    let JoinCounts { late, unknown, expired, waiting, early, .. } = join.counts();
    assert_eq!((late, unknown, expired, waiting, early), (1, 1, 1, 0, 0));
    // Room is kept by letting the oldest go.
    let mut join = labelled_before(100);
    for i in 0..1_000u32 {
        join.predicted(&i.to_le_bytes(), one(1.0), 0);
    }
    assert_eq!(join.labelled(&899u32.to_le_bytes(), 0, 1.0, 0), Found::Late);
    assert_eq!(join.labelled(&900u32.to_le_bytes(), 0, 1.0, 0), Found::Joined(answer(1.0, 0.25)));
    assert_eq!((join.counts().dropped, join.counts().waiting, join.held), (900, 99, 100));
    assert!(join.order.len() == 100 && join.entries.len() == 100);
    let never =
        (1_000..21_000u32).filter(|i| join.gone.contains(join.seed.hash_one(i.to_le_bytes())));
    assert!(never.count() < 200);
}

#[test]
fn labels_that_come_first_wait_for_their_prediction() {
    let mut join = Join::new(BINARY, 100, 1_000_000);
    assert_eq!(join.labelled(b"a", 0, 1.0, 0), Found::Waiting);
    assert_eq!(join.labelled(b"a", 0, 1.0, 0), Found::Duplicate);
    assert_eq!(join.labelled(b"a", 9, 0.0, 5_000), Found::Waiting);
    let met = join.predicted(b"a", one(1.0), EARLY_FOR);
    assert_eq!(met, [Met { prediction: answer(1.0, 0.25), truth: 1.0 }]);
    assert_eq!(join.labelled(b"a", 0, 1.0, EARLY_FOR), Found::Duplicate);
    let JoinCounts { joined, duplicate, unknown, early, waiting, .. } = join.counts();
    assert_eq!((joined, duplicate, unknown, early, waiting), (1, 2, 1, 0, 0));
    for i in 0..20_000u32 {
        join.labelled(&i.to_le_bytes(), 0, 1.0, EARLY_FOR);
    }
    assert_eq!(join.counts().early, MOST_EARLY as u64);
    join.expire(3 * EARLY_FOR);
    assert!(join.early.is_empty() && join.early_order.is_empty());
    assert_eq!(join.counts().unknown, 20_001);
}

#[test]
fn a_repeated_id_is_the_newest_request() {
    let mut join = labelled_before(100);
    join.predicted(b"a", one(0.0), 0);
    join.predicted(b"a", one(1.0), 500);
    // The first one's time is over, the second's is not.
    join.expire(1_200);
    assert_eq!(join.labelled(b"a", 0, 1.0, 1_200), Found::Joined(answer(1.0, 0.25)));
    assert_eq!((join.counts().dropped, join.counts().expired), (1, 0));
    // Larger than the table: its first rows are kept.
    let mut join = Join::new(BINARY, 10, 1_000);
    join.predicted(b"b", (0..25).map(|i| answer(f64::from(i), 0.5)), 0);
    assert_eq!((join.held, join.counts().dropped), (10, 15));
    assert_eq!(join.labelled(b"b", 9, 1.0, 1), Found::Joined(answer(9.0, 0.5)));
    let mut join = Join::new(BINARY, 0, 1_000);
    join.predicted(b"c", one(1.0), 0);
    assert_eq!((join.held, join.counts().dropped, join.counts().waiting), (0, 1, 0));
}
