//! Numbers as people read them.

use super::merge::Spread;

const TEXT_CHARS_MAX: usize = 300;

/// A latency in milliseconds with three digits; seconds from ten on.
pub(super) fn ms(value: f64) -> String {
    if value >= 9_999.5 { format!("{} s", three(value / 1e3)) } else { three(value) }
}

/// Three digits, and thousands apart.
pub(super) fn three(value: f64) -> String {
    match value.abs() {
        size if !value.is_finite() || size >= 1e15 => format!("{value:.1e}"),
        size if size >= 99.95 => whole(value),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Without digits after the point, thousands apart.
pub(super) fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A plain number as settings have it: 50, 0.5.
pub(super) fn setting(value: f64) -> String {
    let text = format!("{value:.2}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The median, with the least and the largest where rounds differ.
pub(super) fn spread(values: &Spread, figure: impl Fn(f64) -> String) -> String {
    let median = figure(values.median());
    let (least, most) = (figure(values.least()), figure(values.most()));
    if least == most { median } else { format!("{median} ({least} to {most})") }
}

pub(super) fn bytes(value: f64) -> String {
    match value {
        _ if value >= 1024.0 * 1024.0 * 1024.0 => format!("{} GiB", three(value / 1024.0 / 1024.0 / 1024.0)),
        _ if value >= 1024.0 * 1024.0 => format!("{} MiB", three(value / 1024.0 / 1024.0)),
        _ if value >= 1024.0 => format!("{} KiB", three(value / 1024.0)),
        _ => format!("{value:.0} B"),
    }
}

/// `1 round`, `3 rounds`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", whole(count as f64), if count == 1 { "" } else { "s" })
}

/// Text from a file on one line, cut where it goes on too long.
pub(super) fn line(text: &str) -> String {
    let mut line: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(TEXT_CHARS_MAX).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_have_three_digits_and_thousands_stand_apart() {
        let read = [0.0, 0.012, 1.3, 10.0, 99.96, 162.4, 1_164.2, 9_999.6, 22_800.0].map(super::ms);
        assert_eq!(read, ["0.00", "0.012", "1.30", "10.0", "100", "162", "1,164", "10.0 s", "22.8 s"]);
        assert_eq!([1e18, f64::INFINITY, -1_234.5].map(super::three), ["1.0e18", "inf", "-1,234"]);
        assert_eq!([50.0, 0.5, 100.0].map(super::setting), ["50", "0.5", "100"]);
    }
}
