use super::*;

#[test]
fn an_unchanged_stream_is_quiet_and_a_changed_one_is_not() {
    let reference = Reference::new(&[10_000; 10], 10, &Settings::default());
    let mut detector = Detector::new(10);
    for _ in 0..200 {
        let tick = detector.tick(&reference, &[5; 10]);
        assert!(tick.log_sum < 3.0, "{tick:?}");
    }
    let mut last = None;
    for _ in 0..20 {
        last = Some(detector.tick(&reference, &[10, 9, 8, 7, 5, 4, 3, 2, 1, 1]));
    }
    let last = last.unwrap();
    assert!(last.log_sum > 20.0 && last.best.start_tick >= 190, "{last:?}");
}
