//! Figures as characters.

const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar of `width` characters, as full as `share`, from 0 to 1.
pub(in crate::cli) fn bar(share: f64, width: usize) -> String {
    // What is no number is nothing.
    let share = if share > 0.0 { share.min(1.0) } else { 0.0 };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut bar: String = std::iter::repeat_n('█', eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8 - 1]);
    }
    let rest = width - bar.chars().count();
    bar.extend(std::iter::repeat_n(' ', rest));
    bar
}

/// The newest values in at most `width` characters, from 0 to `top` or to the largest of them.
/// Several values in one place are their largest.
pub(in crate::cli) fn sparkline(values: &[f64], top: f64, width: usize) -> String {
    let top = values.iter().copied().filter(|value| value.is_finite()).fold(top, f64::max);
    let per_place = values.len().div_ceil(width.max(1)).max(1);
    // From the newest, so that the last place is full.
    let mut places: Vec<char> = values
        .rchunks(per_place)
        .map(|values| {
            let largest = values.iter().copied().fold(0.0, f64::max);
            let height = if top > 0.0 { largest / top * 8.0 } else { 0.0 };
            HEIGHTS[(height as usize).min(7)]
        })
        .collect();
    places.reverse();
    places.into_iter().collect()
}

/// `12,345`
pub(in crate::cli) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2.5 %`
pub(in crate::cli) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent >= 10.0 {
        format!("{percent:.0} %")
    } else if percent < 0.1 {
        "<0.1 %".to_owned()
    } else {
        format!("{percent:.1} %")
    }
}

/// How long ago, in a word or two.
pub(in crate::cli) fn ago(now: u64, then: u64) -> String {
    let seconds = now.saturating_sub(then) / 1000;
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7_199 => format!("{} min ago", seconds / 60),
        7_200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_wide_as_they_are_asked_to_be() {
        for (share, expected) in [
            (0.0, "    "),
            (0.5, "██  "),
            (0.53125, "██▏ "),
            (1.0, "████"),
            (7.0, "████"),
            (-1.0, "    "),
            (f64::NAN, "    "),
            (f64::INFINITY, "████"),
        ] {
            assert_eq!(bar(share, 4), expected, "{share}");
        }
    }

    #[test]
    fn sparklines_end_with_the_newest() {
        assert_eq!(sparkline(&[0.0, 4.0, 8.0], 0.0, 10), "▁▅█");
        assert_eq!(sparkline(&[0.0, 1.0], 16.0, 10), "▁▁");
        assert_eq!(sparkline(&[9.0, 0.0, 0.0, 8.0, f64::NEG_INFINITY], 8.0, 3), "█▁█");
        assert_eq!(sparkline(&[], 1.0, 3), "");
    }

    #[test]
    fn numbers_for_people() {
        let numbers = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let shares = [0.0, 0.0002, 0.0251, 0.5].map(percent);
        assert_eq!(shares, ["0 %", "<0.1 %", "2.5 %", "50 %"]);
        let times = [5_000, 180_000, 7_200_000, 400_000_000].map(|then| ago(400_000_000, then));
        assert_eq!(times, ["4 days ago", "4 days ago", "4 days ago", "0 s ago"]);
        assert_eq!(ago(600_000, 0), "10 min ago");
    }
}
