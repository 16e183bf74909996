//! A log with a workload that follows from a seed: publishes, settlements, copies, restarts.

use leveret_broker::id::{Instant, SECOND_NS, Time, WallTime};

use crate::disk::Disk;
use crate::disk::flaw::{DiskFaults, Failure};
use crate::random::Random;

use super::expected::Note;
use super::images::Traced;
use super::reader::{self, Reading};
use super::session::Session;

/// From this many held messages on, the workload settles more than it publishes.
const HELD_MANY: usize = 60;

/// The limit on steps of the disk until a log without new work must be at rest.
const REST_STEPS_MAX: u64 = 100_000;

/// The most steps of the disk in one turn.
const DISK_STEPS_MAX: u64 = 6;

/// A log, its disk, and the recorded run.
#[derive(Debug)]
pub(super) struct Workload {
    random: Random,
    now: Instant,
    /// The wall time of instant 0, another one in each process.
    wall_at_zero: WallTime,
    pub(super) disk: Disk,
    session: Session,
    trace: Vec<Traced>,
    #[cfg(test)]
    pub(super) bug: Option<leveret_broker::storage::log::bug::Bug>,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut faults = DiskFaults::random(&mut random);
        if random.chance(20) {
            let failure = random.pick(&[Failure::Io, Failure::Short]);
            faults.failure = Some((random.below(400), failure));
        }
        let mut disk = Disk::new(faults);
        disk.record();
        let segment_bytes = random.pick(&[32 << 10, 32 << 10, 64 << 10]);
        Self {
            session: Session::new(segment_bytes),
            random,
            now: Instant(1),
            wall_at_zero: WallTime::default(),
            disk,
            trace: Vec::new(),
            #[cfg(test)]
            bug: None,
        }
    }

    /// Runs the workload and returns the recorded run.
    pub(super) fn run(mut self, turns: u64) -> Result<Vec<Traced>, String> {
        self.boot(Reading::default())?;
        for _ in 0..turns {
            self.turn()?;
        }
        self.rest()?;
        match self.disk.breach() {
            Some(breach) => Err(format!("the contract with the disk is broken: {breach}")),
            None => Ok(self.trace),
        }
    }

    fn turn(&mut self) -> Result<(), String> {
        self.now = self.now.after(self.random.below(300_000));
        let many = self.session.held() > HELD_MANY;
        match self.random.below(1000) {
            0..=2 => return self.cut_power(),
            3..=4 => return self.kill(),
            5 => return self.close(),
            6..=350 if !many && self.session.takes_publishes() => {
                for _ in 0..self.random.between(1, 4) {
                    let note = self.session.publish(self.time(), &mut self.random);
                    self.trace.push(Traced::Note(note));
                }
            }
            6..=600 => {
                for _ in 0..self.random.between(1, 6) {
                    let settled = self.session.settle(self.now, &mut self.random);
                    self.trace.extend(settled.map(Note::Settled).map(Traced::Note));
                }
            }
            601..=650 => self.session.read_something(&mut self.random),
            651..=800 => self.session.copy_forward(),
            _ => {}
        }
        self.work()
    }

    fn time(&self) -> Time {
        Time { now: self.now, wall: self.wall_at_zero.after(self.now.0) }
    }

    /// The log and the disk go on for a while.
    fn work(&mut self) -> Result<(), String> {
        if self.session.log.next_timeout().is_some_and(|at| at <= self.now) {
            self.session.log.handle_timeout(self.now);
        }
        if self.random.chance(80) {
            self.submit();
        }
        for _ in 0..self.random.below(DISK_STEPS_MAX) {
            if self.random.chance(30)
                && let Some(due) = self.disk.next_due()
            {
                self.now = self.now.max(due);
            }
            self.step_disk()?;
        }
        Ok(())
    }

    fn submit(&mut self) {
        while let Some(operation) = self.session.log.poll_operation(self.time().wall) {
            self.session.note_operation(&operation);
            self.disk.submit(operation, self.now, &mut self.random);
        }
        self.trace.extend(self.session.report_durable().into_iter().map(Traced::Note));
    }

    fn step_disk(&mut self) -> Result<(), String> {
        let event = self.disk.step(self.now, &mut self.random);
        self.trace.extend(self.disk.take_steps().into_iter().map(Traced::Step));
        let Some(event) = event else { return Ok(()) };
        let notes = self.session.handle(event, self.now)?;
        self.trace.extend(notes.into_iter().map(Traced::Note));
        if !self.session.log.has_failed() {
            return Ok(());
        }
        if self.random.chance(50) { self.kill() } else { self.cut_power() }
    }

    /// Lets everything become durable, without new work.
    fn rest(&mut self) -> Result<(), String> {
        for _ in 0..REST_STEPS_MAX {
            self.submit();
            if self.disk.is_idle() && self.session.log.is_settled() {
                return Ok(());
            }
            let due = [self.disk.next_due(), self.session.log.next_timeout()];
            if let Some(due) = due.into_iter().flatten().min() {
                self.now = self.now.max(due);
            }
            if self.session.log.next_timeout().is_some_and(|at| at <= self.now) {
                self.session.log.handle_timeout(self.now);
            }
            self.step_disk()?;
        }
        let log = &self.session.log;
        let (waiting, segments) = (log.waiting_bytes(), log.segments().begun());
        Err(format!("the log finds no rest with {waiting} bytes waiting: {segments:?}"))
    }

    fn cut_power(&mut self) -> Result<(), String> {
        let percent = self.random.pick(&[0, 50, 100]);
        let random = &mut self.random;
        let image = self.disk.volume().image(|_, _| random.chance(percent));
        self.trace.push(Traced::Cut(image.clone()));
        self.disk.reboot(image);
        self.read_and_boot()
    }

    fn kill(&mut self) -> Result<(), String> {
        self.disk.kill();
        self.read_and_boot()
    }

    /// The process stops cleanly, and another one follows.
    fn close(&mut self) -> Result<(), String> {
        self.session.close();
        let epoch = self.session.epoch;
        self.rest()?;
        if self.session.epoch > epoch {
            // The disk failed meanwhile, and another process has already started.
            return Ok(());
        }
        self.trace.push(Traced::Note(Note::Closed));
        self.kill()
    }

    fn read_and_boot(&mut self) -> Result<(), String> {
        self.trace.extend(self.disk.take_steps().into_iter().map(Traced::Step));
        let reading = reader::read(self.disk.volume().live());
        self.boot(reading)
    }

    fn boot(&mut self, reading: Reading) -> Result<(), String> {
        // Not from the choices of the run, which are the same whatever the clock says.
        let seconds = Random::new(self.now.0).below(2_000_000_000);
        self.wall_at_zero = WallTime(seconds * SECOND_NS);
        self.session.boot(&reading, self.disk.volume().live())?;
        #[cfg(test)]
        if let Some(bug) = self.bug {
            self.session.log.plant(bug);
        }
        self.trace.push(Traced::Note(Note::Boot(reading)));
        Ok(())
    }
}
