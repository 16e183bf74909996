//! Can this machine run a ring? Tested by trying: distributions backport features and sandboxes
//! forbid them, so the kernel's version does not decide.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use crate::completion::{Completion, SocketId, Wait};
use crate::config::RingConfig;
use crate::error::{RingError, remedy, sentence};
use crate::ring::Ring;

/// How long a trial may take; one that works takes microseconds.
const TRIAL_TURNS_MAX: u32 = 100;

/// How long each turn of a trial waits.
const TRIAL_TURN: Duration = Duration::from_millis(10);

/// One feature of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name in the `io_uring` manual.
    pub name: &'static str,
    /// Found here.
    pub present: bool,
    /// The broker does not run without it.
    pub needed: bool,
}

/// The features of the kernel, in the order of the trials. Its `Display` is one line for a banner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// The kernel's release, for display only: no trial depends on it.
    pub kernel_release: String,
    features: Vec<Feature>,
}

impl Features {
    /// All features that were tried.
    pub fn iter(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter()
    }

    /// True when a feature of that name was found.
    pub fn has(&self, name: &str) -> bool {
        self.features.iter().any(|feature| feature.name == name && feature.present)
    }

    fn add(&mut self, name: &'static str, present: bool, needed: bool) {
        self.features.push(Feature { name, present, needed });
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}, io_uring:", self.kernel_release)?;
        for (position, feature) in self.features.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let absent = if feature.present { "" } else { "no " };
            write!(f, "{comma} {absent}{}", feature.name)?;
        }
        Ok(())
    }
}

/// Why no ring can run here, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}. {remedy}")]
pub struct ProbeError {
    /// What failed and why, a sentence without a full stop.
    pub cause: String,
    /// What to do, in full sentences.
    pub remedy: String,
    /// The results of earlier trials; empty if the set-up itself failed.
    pub features: Vec<Feature>,
}

impl ProbeError {
    fn new(step: &str, error: &io::Error) -> Self {
        Self {
            cause: format!("cannot {step}: {} ({error})", sentence(error)),
            remedy: remedy(error).to_owned(),
            features: Vec::new(),
        }
    }
}

impl From<RingError> for ProbeError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Setup { step, source } => Self::new(step, &source),
            RingError::Enter { source } => Self::new("enter the ring", &source),
            other => Self {
                cause: other.to_string(),
                remedy: "Look at the kernel's log.".to_owned(),
                features: Vec::new(),
            },
        }
    }
}

/// Tries everything a [`Ring`] needs: the real set-up, the operations, a ring of 64 buffers with a
/// multishot receive over a socket pair, and a message from one ring to another.
///
/// # Errors
/// [`ProbeError`] with cause and remedy when something needed is missing.
pub fn probe() -> Result<Features, ProbeError> {
    let config = RingConfig {
        sockets_max: 4,
        buffer_count: 64,
        buffer_size_bytes: 4_096,
        lend_above_free_buffers: 0,
        submission_entries: 8,
        completion_entries: 64,
    };
    // The rings' own set-up is the first trial: it fails with the kernel's reason.
    let (mut first, mut second) = (Ring::new(&config)?, Ring::new(&config)?);
    let mut features = Features { kernel_release: kernel_release(), features: Vec::new() };
    features.add("single issuer with deferred task work", true, true);
    features.add("provided buffer rings", true, true);
    features.add("fixed file table", true, true);
    try_operations(&mut features)?;
    features.add("multishot receive", try_multishot_receive(&mut first)?, true);
    features.add("messages between rings", try_message(&mut first, &mut second)?, true);
    let missing = features.iter().find(|feature| feature.needed && !feature.present).copied();
    match missing {
        None => Ok(features),
        Some(missing) => Err(ProbeError {
            cause: format!("the kernel ({}) lacks: {}", features.kernel_release, missing.name),
            remedy: "Run on Linux 6.1 or newer.".to_owned(),
            features: features.features,
        }),
    }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}

/// Asks a plain ring which operations and optional features the kernel has.
fn try_operations(features: &mut Features) -> Result<(), ProbeError> {
    let ring = IoUring::new(8).map_err(|error| ProbeError::new("set up io_uring", &error))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| ProbeError::new("ask for the operations", &error))?;
    let operations = [
        ("accept", opcode::AcceptMulti::CODE, true),
        ("receive", opcode::RecvMulti::CODE, true),
        ("send", opcode::Send::CODE, true),
        ("sendmsg", opcode::SendMsg::CODE, true),
        ("read", opcode::Read::CODE, true),
        ("async cancel", opcode::AsyncCancel::CODE, true),
        ("timeout", opcode::Timeout::CODE, true),
        ("shutdown", opcode::Shutdown::CODE, true),
        ("close", opcode::Close::CODE, true),
        ("zero-copy send", opcode::SendZc::CODE, false),
    ];
    for (name, code, needed) in operations {
        features.add(name, probe.is_supported(code), needed);
    }
    let parameters = ring.params();
    features.add("timeout of enter", parameters.is_feature_ext_arg(), true);
    features.add("completions are never dropped", parameters.is_feature_nodrop(), true);
    features.add("bundles", parameters.is_feature_recvsend_bundle(), false);
    features.add("minimum wait", parameters.is_feature_min_timeout(), false);
    features.add("idle is not iowait", parameters.is_feature_no_iowait(), false);
    Ok(())
}

/// True when one receive, armed once, reports two messages.
fn try_multishot_receive(ring: &mut Ring) -> Result<bool, ProbeError> {
    let (ours, mut theirs) =
        UnixStream::pair().map_err(|error| ProbeError::new("make a socket pair", &error))?;
    let socket = ring.adopt_descriptor(&OwnedFd::from(ours))?;
    ring.receive(socket);
    let mut good = true;
    for message in [b"first", b"again"] {
        theirs.write_all(message).map_err(|error| ProbeError::new("write", &error))?;
        let found = wait_for(ring, |completion| matches!(completion, Completion::Received { .. }))?;
        good &= matches!(found, Some(Completion::Received { bytes, .. }) if bytes == message[..]);
    }
    good &= ring.counters().receive_rearms == 0 && ring.counters().starvations == 0;
    close(ring, socket)?;
    Ok(good)
}

fn close(ring: &mut Ring, socket: SocketId) -> Result<(), ProbeError> {
    ring.close(socket);
    wait_for(ring, |completion| matches!(completion, Completion::Closed { .. })).map(drop)
}

/// True when a message of the first ring wakes the second.
fn try_message(first: &mut Ring, second: &mut Ring) -> Result<bool, ProbeError> {
    first.wake(&second.wake_target());
    first.turn(Wait::No, &mut Vec::new())?;
    Ok(wait_for(second, |completion| matches!(completion, Completion::Woken))?.is_some())
}

fn wait_for(
    ring: &mut Ring,
    wanted: impl Fn(&Completion) -> bool,
) -> Result<Option<Completion>, ProbeError> {
    let mut completions = Vec::new();
    for _ in 0..TRIAL_TURNS_MAX {
        ring.turn(Wait::Until(TRIAL_TURN), &mut completions)?;
        if let Some(position) = completions.iter().position(&wanted) {
            return Ok(Some(completions.swap_remove(position)));
        }
        completions.clear();
    }
    Ok(None)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_good_enough() {
        let features = probe().unwrap();
        assert!(features.iter().count() > 15);
        assert!(features.iter().all(|feature| feature.present || !feature.needed));
        assert!(features.has("multishot receive") && !features.has("telepathy"));
        let banner = features.to_string();
        assert!(
            banner.starts_with("Linux ") && banner.contains("io_uring: single issuer"),
            "{banner}"
        );
    }

    #[test]
    fn a_forbidden_io_uring_is_explained() {
        let error = ProbeError::from(RingError::Setup {
            step: "set up io_uring",
            source: io::Error::from_raw_os_error(libc::EPERM),
        });
        assert!(
            error.cause.starts_with("cannot set up io_uring: io_uring is forbidden"),
            "{error}"
        );
        assert!(error.remedy.contains("seccomp="), "{error}");
        assert!(error.remedy.contains("sysctl -w kernel.io_uring_disabled=0"), "{error}");
    }
}
