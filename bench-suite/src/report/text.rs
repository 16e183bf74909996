//! Formats numbers, durations and external text for reports.

use crate::statistics::Summary;

/// A number with four significant digits and commas as thousands separators.
pub(crate) fn quantity(value: f64) -> String {
    let size = value.abs();
    if size >= 1e15 {
        return format!("{value:.3e}");
    }
    if size >= 100.0 {
        let unit = 10_f64.powi((size.log10().floor() as i32 - 3).max(0));
        return with_commas((value / unit).round() * unit);
    }
    match size {
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        size if size >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

/// A whole number with commas as thousands separators.
pub(crate) fn count(value: u64) -> String {
    group(&value.to_string())
}

/// A ratio, for example `12.3 ×`.
pub(crate) fn ratio(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{} ×", quantity(value)),
        value if value >= 10.0 => format!("{value:.1} ×"),
        value if value >= 0.1 => format!("{value:.2} ×"),
        value => format!("{value:.4} ×"),
    }
}

/// A part of the whole, for example `83 %`.
pub(crate) fn share(value: f64) -> String {
    let percent = value * 100.0;
    if percent >= 10.0 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

/// A duration with a suitable unit.
pub(crate) fn time_us(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} s", quantity(value / 1e6)),
        value if value >= 1e3 => format!("{} ms", quantity(value / 1e3)),
        value => format!("{} µs", quantity(value)),
    }
}

/// `median (lowest – highest)`, or only the median if all values look the same.
pub(crate) fn spread(summary: &Summary, write: fn(f64) -> String) -> String {
    let (low, high) = (write(summary.lowest), write(summary.highest));
    let median = write(summary.median);
    if low == high { median } else { format!("{median} ({low} – {high})") }
}

/// Seconds since 1970 as a date and time in UTC.
pub(crate) fn date(unix_s: u64) -> String {
    let (days, rest_s) = (unix_s / 86_400, unix_s % 86_400);
    // Days since 1 March of the year 0, so that the leap day is the last day of a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (rest_s / 3_600, rest_s % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Escapes external text for HTML, including quoted attributes.
pub(crate) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes external text for one line of Markdown, including tables.
pub(crate) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            // An at sign would notify the user with that name in a pull request.
            '@' => escaped.push_str("&#64;"),
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other if other.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Part of an id or an anchor: lower-case letters, digits and dashes.
pub(crate) fn slug(text: &str) -> String {
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' }
    };
    text.chars().map(plain).collect()
}

/// Lines of at most `columns` characters, broken at spaces. The last one ends with `…` if `lines`
/// are not enough.
pub(crate) fn wrap(text: &str, columns: usize, lines: usize) -> Vec<String> {
    let mut wrapped = vec![String::new()];
    let mut is_cut = false;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let last = wrapped.len() - 1;
        let used = wrapped[last].chars().count();
        if used == 0 || used + 1 + length <= columns {
            wrapped[last].push_str(if used == 0 { "" } else { " " });
            wrapped[last].extend(word.chars().take(columns));
        } else if wrapped.len() < lines {
            wrapped.push(word.chars().take(columns).collect());
        } else {
            is_cut = true;
            break;
        }
    }
    if is_cut && let Some(last) = wrapped.last_mut() {
        last.push('…');
    }
    wrapped
}

fn with_commas(value: f64) -> String {
    group(&format!("{value:.0}"))
}

fn group(digits: &str) -> String {
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        let follows = digits.len() - index;
        if index > 0 && follows.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        assert_eq!(quantity(1_234_567.0), "1,235,000");
        assert_eq!(quantity(123.4), "123");
        assert_eq!(quantity(12.34), "12.3");
        assert_eq!(quantity(0.0), "0");
        assert_eq!(quantity(-1_234_567.0), "-1,235,000");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(ratio(12.34), "12.3 ×");
        assert_eq!(ratio(0.5), "0.50 ×");
        assert_eq!(share(0.834), "83 %");
        assert_eq!(share(0.004), "0.4 %");
        assert_eq!(time_us(250.0), "250 µs");
        assert_eq!(time_us(1_240.0), "1.24 ms");
        assert_eq!(time_us(3_400_000.0), "3.40 s");
    }

    #[test]
    fn a_spread_is_shown_where_there_is_one() {
        let one = Summary { median: 5.0, lowest: 5.0, highest: 5.0 };
        let many = Summary { median: 5.0, lowest: 4.0, highest: 7.0 };
        assert_eq!(spread(&one, quantity), "5.00");
        assert_eq!(spread(&many, quantity), "5.00 (4.00 – 7.00)");
    }

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_767_225_599), "2025-12-31 23:59 UTC");
    }

    #[test]
    fn foreign_text_cannot_become_markup() {
        assert_eq!(html("<b a=\"1\">&'"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;");
        assert_eq!(markdown("a|b\n<i>*x*"), "a\\|b &lt;i&gt;\\*x\\*");
        assert_eq!(markdown("@all [x](y)"), "&#64;all \\[x\\](y)");
        assert_eq!(slug("A b/\"c"), "a-b--c");
    }

    #[test]
    fn long_labels_are_wrapped_and_cut() {
        assert_eq!(wrap("one two three", 7, 2), ["one two", "three"]);
        assert_eq!(wrap("one two three four", 7, 2), ["one two", "three…"]);
        assert_eq!(wrap("incomprehensible", 4, 2), ["inco"]);
    }
}
