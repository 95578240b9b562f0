use std::iter;

use proptest::prelude::*;

use super::*;

const SAMPLE: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

#[test]
fn the_example_of_rfc_9562_reads_as_the_rfc_says() {
    let guuid: Guuid = SAMPLE.parse().expect("the example of RFC 9562 appendix A.6");
    assert_eq!((guuid.version(), guuid.variant(), guuid.timestamp_ms()), (7, 2, 1_645_557_742_000));
    assert_eq!(guuid.to_string(), SAMPLE);
    assert_eq!(format!("{guuid:>38}"), format!("  {SAMPLE}"));
    assert!(!guuid.is_nil() && Guuid::NIL.is_nil());
    assert_eq!(Guuid::NIL.to_string(), "00000000-0000-0000-0000-000000000000");
}

#[test]
fn every_text_form_reads_as_the_same_id() {
    let guuid: Guuid = SAMPLE.parse().expect("canonical");
    for text in [
        SAMPLE.to_uppercase(),
        SAMPLE.replace('-', ""),
        format!("urn:uuid:{SAMPLE}"),
        format!("URN:UUID:{SAMPLE}"),
        format!("{{{SAMPLE}}}"),
    ] {
        assert_eq!(text.parse(), Ok(guuid), "{text}");
    }
    assert_eq!(guuid.to_base64_url(), "AX8i4nmwfMOYxNwMDAc5jw");
    assert_eq!(guuid.to_base64(), "AX8i4nmwfMOYxNwMDAc5jw==");
    assert_eq!(Guuid([0xff; 16]).to_base64_url(), "_____________________w");
    assert_eq!(Guuid([0xff; 16]).to_base64(), "/////////////////////w==");
}

#[test]
fn texts_that_are_no_ids_are_refused_with_the_reason() {
    for text in ["", "0", &SAMPLE[1..], &format!("{SAMPLE}0"), &format!(" {SAMPLE}")] {
        assert_eq!(text.parse::<Guuid>(), Err(GuuidParseError::Length), "{text:?}");
    }
    let misplaced = [
        SAMPLE.replace("22e2-", "22-e2"),
        SAMPLE.replace('f', "g"),
        format!("({SAMPLE})"),
        format!("urn-uuid:{SAMPLE}"),
        SAMPLE.replace('-', "").replace("01", "+1"),
        "é".repeat(18),
        "é".repeat(16),
    ];
    for text in misplaced {
        assert_eq!(text.parse::<Guuid>(), Err(GuuidParseError::Format), "{text:?}");
    }
    assert_eq!(Guuid::from_base64("AX8i4nmwfMOYxNwMDAc5jx"), Err(GuuidParseError::Format), "stray low bits");
    assert_eq!(Guuid::from_base64("AX8i4nmwfMOYxNwMDAc5jw=="), SAMPLE.parse());
    assert_eq!(Guuid::from_base64("AX8i4nmwfMOYxNwMDAc5jw="), Err(GuuidParseError::Length));
    assert_eq!(Guuid::from_base64("AX8i4nmwfMOYxNwMDAc5jw=_"), Err(GuuidParseError::Format));
    assert_eq!(Guuid::from_base64("AX8i4nmwfMOYxNwMDAc5j+"), Err(GuuidParseError::Format), "the other alphabet");
    assert_eq!(Guuid::from_slice(&[0; 15]), Err(GuuidParseError::Length));
}

#[test]
fn ids_ascend_while_the_clock_stands_steps_back_and_overflows() {
    let mut generator = GuuidGenerator::new([5; 32]);
    let mut last = Guuid::NIL;
    let clock = iter::repeat_n(1_000_000, 20_000).chain(iter::repeat_n(999_000, 5_000)).chain(1_000_001..1_010_000);
    for unix_ms in clock {
        let guuid = generator.next(unix_ms);
        assert!(guuid > last, "{guuid} after {last}");
        assert_eq!((guuid.version(), guuid.variant()), (7, 2));
        assert!(guuid.timestamp_ms() >= unix_ms, "never behind the clock");
        last = guuid;
    }
    assert_eq!(last.timestamp_ms(), 1_009_999, "the clock has caught up");
}

#[test]
fn at_least_2048_ids_fit_in_a_millisecond_without_running_ahead() {
    let mut generator = GuuidGenerator::new([6; 32]);
    for unix_ms in 1..200 {
        assert!((0..2048).all(|_| generator.next(unix_ms).timestamp_ms() == unix_ms));
    }
}

#[test]
fn a_generator_starts_with_the_clock_even_at_the_epoch() {
    assert_eq!(GuuidGenerator::new([1; 32]).next(1_700_000_000_000).timestamp_ms(), 1_700_000_000_000);
    assert_eq!(GuuidGenerator::new([1; 32]).next(u64::MAX).timestamp_ms(), TIMESTAMP_MAX);
    assert!(!GuuidGenerator::new([1; 32]).next(0).is_nil());
    assert_ne!(GuuidGenerator::new([1; 32]).next(9), GuuidGenerator::new([2; 32]).next(9));
}

proptest! {
    #[test]
    fn every_id_survives_every_text_form(bytes: [u8; 16]) {
        let guuid = Guuid(bytes);
        let oracle = uuid::Uuid::from_bytes(bytes);
        prop_assert_eq!(guuid.to_string(), oracle.hyphenated().to_string());
        prop_assert_eq!(guuid.to_hex(), oracle.simple().to_string());
        for text in [guuid.to_string(), guuid.to_hex(), oracle.urn().to_string(), oracle.braced().to_string()] {
            prop_assert_eq!(text.parse(), Ok(guuid));
        }
        prop_assert_eq!(Guuid::from_base64(&guuid.to_base64()), Ok(guuid));
        prop_assert_eq!(Guuid::from_base64(&guuid.to_base64_url()), Ok(guuid));
        prop_assert_eq!(Guuid::from_slice(&bytes), Ok(guuid));
    }

    #[test]
    fn any_text_parses_or_not_as_the_uuid_crate_says(text in "\\PC{0,46}|[0-9a-f-]{36}|[0-9a-fA-F]{32}|urn:uuid:[0-9a-f-]{36}") {
        let ours = text.parse::<Guuid>().ok().map(|guuid| guuid.0);
        prop_assert_eq!(ours, uuid::Uuid::parse_str(&text).ok().map(uuid::Uuid::into_bytes));
        let _ = Guuid::from_base64(&text);
    }

    #[test]
    fn ids_ascend_on_any_clock(clock in proptest::collection::vec(0_u64..5, 1..300)) {
        let mut generator = GuuidGenerator::new([9; 32]);
        let ids: Vec<_> = clock.into_iter().map(|unix_ms| generator.next(unix_ms)).collect();
        prop_assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
