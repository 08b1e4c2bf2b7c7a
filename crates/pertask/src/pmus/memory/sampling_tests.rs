//! Which allocations are samples, and what they stand for. (Not in `sampling.rs`, which the models take whole.)

use super::meter::Meter;
use super::sampling::{INTERVAL_BYTES, distance, stands_for};

#[test]
fn what_samples_stand_for_adds_up_to_what_was_allocated() {
    for bytes in [16_u64, 1_000, 100_000, INTERVAL_BYTES, 10 * INTERVAL_BYTES] {
        let (mut allocated, mut chosen) = (0_u64, distance(bytes));
        let (mut count, mut sum, mut seen) = (0.0, 0.0, 0_u64);
        let rounds = 4_000 * INTERVAL_BYTES.div_ceil(bytes);
        for _ in 0..rounds {
            allocated += bytes;
            if allocated >= chosen {
                chosen = allocated + distance(allocated);
                let (more, bytes) = stands_for(bytes);
                (count, sum, seen) = (count + more, sum + bytes, seen + 1);
            }
        }
        // About 4,000 samples, so the error is some 1.6 %.
        let off = (sum / allocated as f64 - 1.0).abs().max((count / rounds as f64 - 1.0).abs());
        assert!(off < 0.1, "{bytes} bytes: {off} with {seen} samples");
    }
}

#[test]
fn a_meter_chooses_its_first_byte_when_it_is_reached() {
    static METER: Meter = Meter::new();
    assert!(METER.count_allocation(10), "the first allocation asks");
    METER.choose(0, 100);
    assert!(!METER.count_allocation(80));
    assert!(METER.count_allocation(20) && METER.count_allocation(1));
    METER.choose(99, 7);
    assert_eq!(METER.chosen(), 100, "somebody else has chosen meanwhile");
    METER.choose_anew();
    assert!(METER.count_allocation(1));
}
