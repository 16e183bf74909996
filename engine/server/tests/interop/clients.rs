//! The other client libraries: what each family plays.

use std::process::Command;

use crate::program::Program;
use crate::stage::{Scenario, Stage};
use crate::tutorials::Edition;
use crate::{lapin_client, tools};

/// pika 0.13.1, the API of 2018.
pub(crate) const PIKA_013: &[Scenario] = &[
    ("pika013 hello world", |stage| {
        Edition::pika013(stage).hello_world();
    }),
    ("pika013 worker killed", |stage| {
        Edition::pika013(stage).worker_killed();
    }),
    ("pika013 workers in turn", |stage| {
        Edition::pika013(stage).workers_in_turn();
    }),
    ("pika013 fair dispatch", |stage| {
        Edition::pika013(stage).fair_dispatch();
    }),
    ("pika013 fanout logs", |stage| {
        Edition::pika013(stage).fanout_logs();
    }),
    ("pika013 direct", |stage| {
        Edition::pika013(stage).direct_by_severity();
    }),
    ("pika013 topics", |stage| Edition::pika013(stage).topics()),
    ("pika013 rpc", |stage| Edition::pika013(stage).rpc()),
    ("pika013 features", |stage| {
        let checks = "confirm returned cancel cancel_notification requeue prefetch properties \
                      large channel_error";
        pass_all(stage, pika013(stage, "pika013/features.py"), checks);
    }),
    ("pika013 reconnect", |stage| {
        stage.with_relay(pika013_reconnect);
    }),
];

/// The current pika.
pub(crate) const PIKA: &[Scenario] = &[
    ("pika hello world", |stage| {
        Edition::pika(stage).hello_world();
    }),
    ("pika worker killed", |stage| {
        Edition::pika(stage).worker_killed();
    }),
    ("pika workers in turn", |stage| {
        Edition::pika(stage).workers_in_turn();
    }),
    ("pika fair dispatch", |stage| {
        Edition::pika(stage).fair_dispatch();
    }),
    ("pika fanout logs", |stage| {
        Edition::pika(stage).fanout_logs();
    }),
    ("pika direct", |stage| {
        Edition::pika(stage).direct_by_severity();
    }),
    ("pika topics", |stage| Edition::pika(stage).topics()),
    ("pika rpc", |stage| Edition::pika(stage).rpc()),
    ("pika features", |stage| {
        let checks = "confirm topic returned cancel cancel_notification requeue prefetch get \
                      properties large channel_error";
        pass_all(stage, python(stage, "pika/features.py"), checks);
    }),
    ("pika reconnect", |stage| stage.with_relay(pika_reconnect)),
];

/// aio-pika with robust connections.
pub(crate) const AIO_PIKA: &[Scenario] = &[
    ("aio_pika features", |stage| {
        let checks = "confirm topic returned cancel cancel_notification deleted_queue_recovered \
                      requeue prefetch properties large";
        pass_all(stage, python(stage, "aio_pika/features.py"), checks);
    }),
    ("aio_pika reconnect", |stage| {
        stage.with_relay(aio_pika_reconnect);
    }),
];

/// kombu by itself.
pub(crate) const KOMBU: &[Scenario] = &[
    ("kombu features", |stage| {
        let checks = "confirm topic returned cancel cancel_notification requeue prefetch \
                      compressed simple_queue";
        pass_all(stage, python(stage, "kombu/features.py"), checks);
    }),
    ("kombu reconnect", |stage| stage.with_relay(kombu_reconnect)),
];

/// A celery application: its workers, and a client of them.
pub(crate) const CELERY: &[Scenario] = &[
    ("celery rpc", |stage| {
        let checks = "result many error retries retries_exhausted countdown ping inspect \
                      remote_control";
        celery(stage, "rpc", "rpc://", checks);
    }),
    ("celery chord", |stage| {
        // rpc:// knows no chords: they need a place where results can be looked up.
        let backend = format!("file://{}", stage.folder().display());
        celery(stage, "chord", &backend, "chord chain group");
    }),
    ("celery reconnect", |stage| {
        stage.with_relay(celery_reconnect);
    }),
];

/// amqplib on Node.
pub(crate) const AMQPLIB: &[Scenario] = &[
    ("amqplib features", |stage| {
        let checks = "confirm topic exchange_to_exchange returned cancel cancel_notification \
                      requeue recover prefetch properties large channel_error";
        pass_all(stage, node(stage, "amqplib/features.js"), checks);
    }),
    ("amqplib reconnect", |stage| {
        stage.with_relay(amqplib_reconnect);
    }),
];

/// rabbitmq-c's command line tools.
pub(crate) const RABBITMQ_C: &[Scenario] = &[("rabbitmq_c tools", |stage| {
    tools::require_amqp_tools();
    let mut script = stage.command("sh");
    script.arg(tools::programs().join("rabbitmq_c/features.sh"));
    pass_all(stage, script, "get consume requeue large topic errors delete");
})];

/// lapin, in this very process.
pub(crate) const LAPIN: &[Scenario] = &[
    ("lapin features", lapin_client::features),
    ("lapin all to all", lapin_client::all_to_all),
    ("lapin reconnect", |stage| {
        stage.with_relay(lapin_client::reconnect);
    }),
];

/// A scenario that calls for an outage at its right moment.
pub(crate) type Reconnect = (&'static str, fn(&Stage, &dyn Fn()));

/// What must live through the broker's restart.
pub(crate) const RECONNECTS: &[Reconnect] = &[
    ("pika013 restart", pika013_reconnect),
    ("pika restart", pika_reconnect),
    ("aio_pika restart", aio_pika_reconnect),
    ("kombu restart", kombu_reconnect),
    ("celery restart", celery_reconnect),
    ("amqplib restart", amqplib_reconnect),
    ("lapin restart", lapin_client::reconnect),
];

fn pika013_reconnect(stage: &Stage, outage: &dyn Fn()) {
    stage.survive(&mut pika013(stage, "pika013/reconnect.py"), outage);
}

fn pika_reconnect(stage: &Stage, outage: &dyn Fn()) {
    stage.survive(&mut python(stage, "pika/reconnect.py"), outage);
}

fn aio_pika_reconnect(stage: &Stage, outage: &dyn Fn()) {
    stage.survive(&mut python(stage, "aio_pika/reconnect.py"), outage);
}

fn kombu_reconnect(stage: &Stage, outage: &dyn Fn()) {
    stage.survive(&mut python(stage, "kombu/reconnect.py"), outage);
}

fn amqplib_reconnect(stage: &Stage, outage: &dyn Fn()) {
    stage.survive(&mut node(stage, "amqplib/reconnect.js"), outage);
}

/// A program with pika 0.13.1.
fn pika013(stage: &Stage, file: &str) -> Command {
    let mut command = stage.command(tools::python_pika013());
    command.arg(tools::programs().join(file));
    command
}

/// A program with the current Python clients.
fn python(stage: &Stage, file: &str) -> Command {
    let mut command = stage.command(tools::python());
    command.arg(tools::programs().join(file));
    command
}

/// A program with amqplib.
fn node(stage: &Stage, file: &str) -> Command {
    let modules = tools::node_modules();
    let mut command = stage.command("node");
    command.env("NODE_PATH", modules).arg(tools::programs().join(file));
    command
}

fn pass_all(stage: &Stage, mut command: Command, checks: &str) {
    stage.pass_all(&mut command, &checks.split_whitespace().collect::<Vec<_>>());
}

/// A worker, then the client in one of its modes; the worker must end well afterwards.
fn celery(stage: &Stage, mode: &str, backend: &str, checks: &str) {
    let (worker, node) = celery_worker(stage, backend);
    pass_all(stage, celery_client(stage, mode, backend, &node), checks);
    worker.terminate();
    let log = worker.succeed();
    assert!(log.contains("Warm shutdown"), "the worker's log:\n{log}");
}

/// A worker and a client meet an outage, and go on together.
fn celery_reconnect(stage: &Stage, outage: &dyn Fn()) {
    let (worker, node) = celery_worker(stage, "rpc://");
    let mut command = celery_client(stage, "reconnect", "rpc://", &node);
    let mut client = Program::start("celery client", &mut command);
    client.expect("ready");
    outage();
    client.tell("restarted");
    client.expect("passed reconnect");
    client.succeed();
    worker.terminate();
    worker.succeed();
}

fn celery_worker(stage: &Stage, backend: &str) -> (Program, String) {
    let node = format!("worker@{}", stage.named("host"));
    let mut command = stage.command(tools::python());
    command.args(["-m", "celery", "-A", "tasks", "worker", "--concurrency=2", "--loglevel=INFO"]);
    command.arg("--hostname").arg(&node);
    in_celery(&mut command, backend);
    let mut worker = Program::start("celery worker", &mut command);
    worker.expect(" ready.");
    (worker, node)
}

fn celery_client(stage: &Stage, mode: &str, backend: &str, node: &str) -> Command {
    let mut command = python(stage, "celery/client.py");
    in_celery(command.args([mode, node]), backend);
    command
}

fn in_celery(command: &mut Command, backend: &str) {
    command.env("PYTHONPATH", tools::programs().join("celery"));
    command.env("RESULT_BACKEND", backend);
    // A CI machine runs it as root, and it would warn on every start.
    command.env("C_FORCE_ROOT", "true");
}
