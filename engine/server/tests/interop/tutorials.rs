//! The six tutorials as a reader plays them: several terminals, one program in each.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::program::{PATIENCE, Program};
use crate::stage::Stage;
use crate::tools;

/// Long enough for a wrong message to arrive after the right ones have.
const SETTLE: Duration = Duration::from_millis(150);

/// One edition of the tutorial programs.
pub(crate) struct Edition<'a> {
    stage: &'a Stage,
    python: &'static Path,
    folder: &'static str,
}

impl<'a> Edition<'a> {
    /// The programs of the old API, pika 0.13.1.
    pub(crate) fn pika013(stage: &'a Stage) -> Self {
        Self { stage, python: tools::python_pika013(), folder: "pika013" }
    }

    /// The programs of today.
    pub(crate) fn pika(stage: &'a Stage) -> Self {
        Self { stage, python: tools::python(), folder: "pika" }
    }

    fn start(&self, words: &[&str]) -> Program {
        let mut command = self.stage.command(self.python);
        command.arg(tools::programs().join(self.folder).join(words[0])).args(&words[1..]);
        Program::start(&words.join(" "), &mut command)
    }

    /// Starts a program that waits for messages, and waits until it does.
    fn start_waiting(&self, words: &[&str]) -> Program {
        let mut program = self.start(words);
        program.expect(" [*] Waiting for");
        program
    }

    /// Runs a program that ends by itself.
    fn run(&self, words: &[&str]) -> String {
        self.start(words).succeed()
    }

    /// 1. One program sends, another one receives, whichever comes first.
    pub(crate) fn hello_world(&self) {
        assert!(self.run(&["send.py"]).contains(" [x] Sent 'Hello World!'"));
        let mut receiver = self.start_waiting(&["receive.py"]);
        receiver.expect(" [x] Received Hello World!");
        self.run(&["send.py"]);
        receiver.expect(" [x] Received Hello World!");
        sleep(SETTLE);
        assert_eq!(receiver.matching("Received").len(), 2);
    }

    /// 2a. A worker dies in the middle of its task: the next one gets it, flagged as redelivered.
    pub(crate) fn worker_killed(&self) {
        let mut first = self.start_waiting(&["worker.py", "1"]);
        self.run(&["new_task.py", &endless("A hard task")]);
        first.expect(" [x] Received A hard task");
        let mut second = self.start_waiting(&["worker.py", "1"]);
        sleep(SETTLE);
        assert_eq!(second.matching("Received").len(), 0, "the first worker is still at it");
        first.kill();
        second.expect(" [x] Received again A hard task");
        // Nobody waits when this one dies: the task waits for whoever comes.
        second.kill();
        let mut third = self.start_waiting(&["worker.py", "1"]);
        third.expect(" [x] Received again A hard task");
        sleep(SETTLE);
        assert_eq!(third.matching("Received").len(), 1);
    }

    /// 2b. Workers without a prefetch limit get their tasks strictly in turn.
    pub(crate) fn workers_in_turn(&self) {
        let workers: Vec<_> = (0..3).map(|_| self.start_waiting(&["worker.py"])).collect();
        for task in ["a1", "b2", "c3", "d4", "e5", "f6"] {
            self.run(&["new_task.py", task]);
        }
        let mut done: Vec<_> = workers
            .iter()
            .map(|worker| {
                let lines = worker.expect_count(" [x] Done ", 2);
                lines.iter().map(|line| line.replace(" [x] Done ", "")).collect::<Vec<_>>()
            })
            .collect();
        done.sort();
        assert_eq!(done, [["a1", "d4"], ["b2", "e5"], ["c3", "f6"]]);
        // All are acknowledged: nothing is left for the next shift.
        sleep(SETTLE);
        drop(workers);
        let next = self.start_waiting(&["worker.py"]);
        sleep(SETTLE);
        assert_eq!(next.matching("Received").len(), 0);
    }

    /// 2c. With `prefetch_count=1` a busy worker is passed over.
    pub(crate) fn fair_dispatch(&self) {
        let mut busy = self.start_waiting(&["worker.py", "1"]);
        self.run(&["new_task.py", &endless("long")]);
        busy.expect(" [x] Received long...");
        let idle = self.start_waiting(&["worker.py", "1"]);
        for task in ["one", "two", "three"] {
            self.run(&["new_task.py", task]);
        }
        let done = idle.expect_count(" [x] Done ", 3);
        assert_eq!(done, [" [x] Done one", " [x] Done two", " [x] Done three"]);
        assert_eq!(busy.matching(" [x] ").len(), 1);
    }

    /// 3. Every subscriber gets a copy; who comes late gets nothing; private queues vanish.
    pub(crate) fn fanout_logs(&self) {
        self.run(&["emit_log.py", "into the void"]);
        let mut first = self.start(&["receive_logs.py"]);
        let waiting = first.expect(" [*] Waiting for logs in ");
        let queue = waiting.rsplit_once(' ').expect("the queue's name").1.to_owned();
        assert!(queue.starts_with("amq.gen-"), "a server-named queue is called {queue:?}");
        let mut second = self.start_waiting(&["receive_logs.py"]);
        self.run(&["emit_log.py", "for two"]);
        first.expect(" [x] for two");
        second.expect(" [x] for two");
        let mut late = self.start_waiting(&["receive_logs.py"]);
        // Another connection does not even get to look at a private queue.
        let locked = self.run(&["queue_exists.py", &queue]);
        assert!(locked.contains("closed 405 RESOURCE_LOCKED - "), "{locked}");
        first.kill();
        self.until_gone(&queue);
        self.run(&["emit_log.py", "for the living"]);
        second.expect(" [x] for the living");
        late.expect(" [x] for the living");
        sleep(SETTLE);
        assert_eq!(second.matching(" [x] ").len(), 2);
        assert_eq!(late.matching(" [x] ").len(), 1);
    }

    /// Until a passive declare says that there is no such queue.
    fn until_gone(&self, queue: &str) {
        let deadline = Instant::now() + PATIENCE;
        let gone = format!(" [x] closed 404 NOT_FOUND - no queue '{queue}' in vhost '/'");
        loop {
            let answer = self.run(&["queue_exists.py", queue]);
            if answer.contains(&gone) {
                return;
            }
            assert!(Instant::now() < deadline, "the private queue is still there: {answer}");
        }
    }

    /// 4. A subscriber chooses severities, several of them with several bindings.
    pub(crate) fn direct_by_severity(&self) {
        let errors = self.start_waiting(&["receive_logs_direct.py", "error"]);
        let all = self.start_waiting(&["receive_logs_direct.py", "info", "warning", "error"]);
        for (severity, text) in
            [("info", "up"), ("error", "run"), ("debug", "nobody"), ("warning", "hot")]
        {
            self.run(&["emit_log_direct.py", severity, text]);
        }
        self.run(&["emit_log_direct.py", "error", "end"]);
        expect_just(&errors, &["error:run", "error:end"]);
        expect_just(&all, &["info:up", "error:run", "warning:hot", "error:end"]);
    }

    /// 5. Patterns; a message that matches two bindings of a queue arrives once.
    pub(crate) fn topics(&self) {
        let all = self.start_waiting(&["receive_logs_topic.py", "#"]);
        let infos = self.start_waiting(&["receive_logs_topic.py", "*.info"]);
        let orange = self.start_waiting(&["receive_logs_topic.py", "*.orange.*"]);
        let both = self.start_waiting(&["receive_logs_topic.py", "*.*.rabbit", "lazy.*"]);
        let keys = [
            "quick.orange.rabbit",
            "lazy.orange.elephant",
            "quick.brown.fox",
            "lazy.info",
            "orange",
            "quick.orange.new.rabbit",
            "lazy.pink.rabbit",
        ];
        for key in keys {
            self.run(&["emit_log_topic.py", key, "x"]);
        }
        let lines: Vec<_> = keys.iter().map(|key| format!("{key}:x")).collect();
        expect_just(&all, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        expect_just(&infos, &["lazy.info:x"]);
        expect_just(&orange, &["quick.orange.rabbit:x", "lazy.orange.elephant:x"]);
        expect_just(&both, &["quick.orange.rabbit:x", "lazy.info:x", "lazy.pink.rabbit:x"]);
    }

    /// 6. Requests over one queue, replies over private ones, told apart by `correlation_id`.
    pub(crate) fn rpc(&self) {
        let mut server = self.start(&["rpc_server.py"]);
        server.expect(" [x] Awaiting RPC requests");
        let mut second_server = self.start(&["rpc_server.py"]);
        second_server.expect(" [x] Awaiting RPC requests");
        let clients = [
            self.start(&["rpc_client.py", "10", "11", "12"]),
            self.start(&["rpc_client.py", "20", "19", "18"]),
        ];
        let answers = clients.map(Program::succeed);
        for (answer, values) in answers.iter().zip([[55, 89, 144], [6765, 4181, 2584]]) {
            let got: Vec<_> = answer.lines().filter(|line| line.contains(" [.] Got ")).collect();
            let wanted = values.map(|value| format!("     [.] Got {value}"));
            assert_eq!(got, wanted, "{answer}");
        }
        let calls = [server, second_server].map(|server| server.matching(" [.] fib(").len());
        assert_eq!(calls[0] + calls[1], 6);
    }
}

/// A task that takes a second for each dot: longer than its test can.
fn endless(task: &str) -> String {
    format!("{task}{}", ".".repeat(PATIENCE.as_secs() as usize * 3))
}

/// Each line of output once, and no other; programs of their own do not order their messages.
fn expect_just(program: &Program, wanted: &[&str]) {
    let mut wanted: Vec<_> = wanted.iter().map(|line| format!(" [x] {line}")).collect();
    program.expect_count(" [x] ", wanted.len());
    sleep(SETTLE);
    let mut got = program.matching(" [x] ");
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted);
}
