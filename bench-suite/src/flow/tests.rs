use super::*;
use crate::stub::{self, Defect};

/// Short, and impatient only where something is missing on purpose.
fn run(defect: Defect, acknowledged: Option<Acknowledged>) -> Result<Reading, Fault> {
    let pid = std::process::id();
    let broker = Broker { name: "stub".to_owned(), address: stub::start(defect), pid };
    let silence_max = match defect {
        Defect::None => Duration::from_secs(30),
        _ => Duration::from_millis(500),
    };
    measure(
        &broker,
        &Flow { acknowledged, window: Duration::from_millis(200), silence_max },
        7,
        &[],
    )
}

fn fault(defect: Defect, acknowledged: Option<Acknowledged>) -> String {
    run(defect, acknowledged).unwrap_err().to_string()
}

#[test]
fn an_honest_broker_passes() {
    for acknowledged in [None, Some(Acknowledged::USUAL)] {
        let reading = run(Defect::None, acknowledged).unwrap();
        assert!(reading.messages > 0 && reading.values.iter().all(|value| *value > 0.0));
        assert_eq!(reading.values.len(), 3);
    }
}

#[test]
fn what_a_broker_does_to_messages_is_noticed() {
    let cases = [
        (Defect::Lose, "messages: ", " 0 lost"),
        (Defect::Duplicate, "messages: 0 lost, ", " 0 duplicated"),
        (Defect::Reorder, "messages: 0 lost, 0 duplicated, ", " 0 reordered"),
        (Defect::Corrupt, " foreign", " 0 foreign"),
        (Defect::Shorten, "a body has not", "lost"),
    ];
    for acknowledged in [None, Some(Acknowledged::USUAL)] {
        for (defect, said, unsaid) in cases {
            let fault = fault(defect, acknowledged);
            assert!(fault.contains(said) && !fault.contains(unsaid), "{defect:?}: {fault}");
        }
    }
}

#[test]
fn confirms_are_counted() {
    let usual = Some(Acknowledged::USUAL);
    let forgotten = fault(Defect::ForgetConfirms, usual);
    assert!(forgotten.contains("waiting for confirms"), "{forgotten}");
    let twice = fault(Defect::ConfirmTwice, usual);
    assert!(twice.contains("was not unconfirmed"), "{twice}");
}

#[test]
fn a_refusal_is_told_with_the_words_of_the_broker() {
    let refusal = fault(Defect::RefuseQueue, None);
    assert!(refusal.contains("closed the channel: 404 NOT_FOUND"), "{refusal}");
}

#[test]
fn the_wrong_process_is_noticed() {
    let mut idle =
        std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let address = stub::start(Defect::None);
    let broker = Broker { name: "stub".to_owned(), address, pid: idle.id() };
    let window = Duration::from_millis(50);
    let flow = Flow { acknowledged: None, window, silence_max: Duration::from_secs(30) };
    let fault = measure(&broker, &flow, 7, &[]).unwrap_err().to_string();
    drop(idle.stdin.take());
    idle.wait().unwrap();
    assert!(fault.contains("without any processor time"), "{fault}");
}

#[test]
fn a_window_is_rates() {
    let window = Window { elapsed_s: 2.0, messages: 1000, cpu_s: 0.5 };
    assert_eq!(window.values(), [500.0, 2000.0, 0.25]);
}
