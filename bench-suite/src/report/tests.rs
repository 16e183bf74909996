use super::*;

fn subject(name: &str) -> Subject {
    Subject {
        name: name.to_owned(),
        product: format!("{name} 1.0"),
        cores: "0".to_owned(),
        rss_bytes: 12_345_678,
    }
}

fn report(names: &[&str], rates: &[&[Option<f64>]]) -> Report {
    let subjects = names.iter().map(|name| subject(name)).collect();
    let mut report = Report::new(subjects, "a machine".to_owned(), vec![1]);
    for (run, rates) in (1..).zip(rates) {
        for (broker, rate) in rates.iter().enumerate() {
            let reading = match rate {
                Some(rate) => Ok(Reading { values: vec![*rate, rate * 2.0, 0.5], messages: 1000 }),
                None => Err(Fault::Messages("messages: 3 lost".to_owned())),
            };
            let scenario = Scenario::AutoAck;
            report.outcomes.push(Outcome { scenario, broker, run, reading });
        }
    }
    report
}

#[test]
fn medians_spreads_and_ratios_stand_in_one_row() {
    let rates = [
        [Some(100_000.0), Some(1_000_000.0)],
        [Some(50_000.0), Some(600_000.0)],
        [Some(80_000.0), Some(880_000.0)],
    ];
    let rates: Vec<&[_]> = rates.iter().map(|run| &run[..]).collect();
    let text = report(&["old", "new"], &rates).to_string();
    let row = "| new | 880 k (600 k – 1.00 M) | 11.0 (10.0 – 12.0) \
               | 1.76 M (1.20 M – 2.00 M) | 11.0 (10.0 – 12.0) \
               | 0.500 (0.500 – 0.500) | 3 of 3 |";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("| old | 80.0 k (50.0 k – 100 k) | 1 |"), "{text}");
    assert!(text.contains("× old"), "{text}");
    assert!(text.contains("* new carried 3000 messages"), "{text}");
    assert!(text.contains("* old: old 1.0, on cores 0, 12.3 M B resident"), "{text}");
    assert!(!text.contains("Failed runs") && !text.contains("Only one"), "{text}");
    let columns = |line: &&str| line.matches('|').count() == 8;
    let table = text.lines().filter(|line| line.starts_with('|'));
    assert!(table.clone().count() == 4 && table.clone().all(|line| columns(&line)), "{text}");
}

#[test]
fn failed_runs_are_named_and_not_counted() {
    let report =
        report(&["old", "new"], &[&[Some(1.0), None], &[Some(2.0), Some(4.0)], &[None, Some(9.0)]]);
    assert!(report.has_failed_runs());
    let text = report.to_string();
    assert!(text.contains("| new | 6.50 (4.00 – 9.00) | 2.00 (2.00 – 2.00) |"), "{text}");
    assert!(text.contains("2 of 3"), "{text}");
    assert!(text.contains("* AutoAck, run 1, new: FAILED: messages: 3 lost"), "{text}");
}

#[test]
fn one_broker_has_no_ratio_and_a_warning() {
    let text = report(&["only"], &[&[Some(1.0)]]).to_string();
    assert!(!text.contains('×') && text.contains("Only one broker"), "{text}");
    let none = report(&["only"], &[&[None]]).to_string();
    assert!(none.contains("| only | – | – | – | 0 of 1 |"), "{none}");
}

#[test]
fn numbers_have_three_digits() {
    let cases = [
        (0.0, "0"),
        (0.0123, "0.0123"),
        (0.5, "0.500"),
        (7.0, "7.00"),
        (94_100.0, "94.1 k"),
        (18_600_000.0, "18.6 M"),
        (3.1e9, "3.10 G"),
        (-1500.0, "-1.50 k"),
    ];
    for (value, text) in cases {
        assert_eq!(quantity(value), text);
    }
}
