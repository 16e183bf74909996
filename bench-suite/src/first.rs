//! The order of a measurement: every scenario, run by run, one broker after the other.

use std::io::Write;
use std::time::Duration;

use crate::broker::Broker;
use crate::cli::Plan;
use crate::client::Connection;
use crate::fault::Fault;
use crate::flow::{self, Acknowledged, Flow};
use crate::memory::{self, BaselineBytes};
use crate::procfs;
use crate::report::{Outcome, Report, Subject};
use crate::scenario::{Reading, Scenario};

/// Makes all runs. A run that fails is part of the report; what makes all runs pointless (no
/// broker, no process, no such core) is an error.
pub(crate) fn measure(plan: &Plan) -> Result<Report, Fault> {
    let machine = procfs::machine();
    for core in &plan.cores {
        let pinned = std::thread::scope(|scope| scope.spawn(|| procfs::pin(Some(core))).join());
        pinned.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    let subjects = plan.brokers.iter().map(inspect).collect::<Result<Vec<_>, _>>()?;
    let mut report = Report::new(subjects, machine, plan.cores.clone());
    let mut run_id = u64::from(std::process::id()) << 32;
    for scenario in plan.scenarios() {
        let mut baselines = vec![None; plan.brokers.len()];
        for run in 1..=plan.runs {
            for (index, broker) in plan.brokers.iter().enumerate() {
                run_id += 1;
                let _ = write!(
                    std::io::stderr(),
                    "{scenario:?}, run {run} of {}, {}: ",
                    plan.runs,
                    broker.name
                );
                let reading = measure_one(plan, scenario, broker, run_id, &mut baselines[index]);
                let outcome = Outcome { scenario, broker: index, run, reading };
                eprintln!("{outcome}");
                report.outcomes.push(outcome);
            }
        }
    }
    Ok(report)
}

/// Looks at a broker once, before the first run.
fn inspect(broker: &Broker) -> Result<Subject, Fault> {
    procfs::cpu_s(broker.pid)?;
    let connection = Connection::open(broker.address)?;
    let product = connection.product.clone();
    connection.close()?;
    Ok(Subject {
        name: broker.name.clone(),
        product,
        cores: procfs::allowed_cores(broker.pid),
        rss_bytes: procfs::rss_bytes(broker.pid)?,
    })
}

fn measure_one(
    plan: &Plan,
    scenario: Scenario,
    broker: &Broker,
    run_id: u64,
    baseline: &mut BaselineBytes,
) -> Result<Reading, Fault> {
    let flow = |acknowledged| {
        let window = Duration::from_secs(plan.seconds);
        let flow = Flow { acknowledged, window, silence_max: flow::SILENCE_MAX };
        flow::measure(broker, &flow, run_id, &plan.cores)
    };
    match scenario {
        Scenario::IdleConnections => {
            memory::measure_connections(broker, plan.connections, baseline)
        }
        Scenario::QueuedMessages => memory::measure_backlog(broker, plan.backlog, run_id, baseline),
        Scenario::AutoAck => flow(None),
        Scenario::Confirms => flow(Some(Acknowledged::USUAL)),
    }
}
