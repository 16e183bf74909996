//! The floor as a subject of a measurement: a process of its own, so that its processor time can be
//! separated from that of the client, and pinned like the broker it is compared with.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::broker::Broker;
use crate::cli::FloorArguments;
use crate::fault::Fault;

/// What the process prints once it listens, followed by its address.
const LISTENING: &str = "listening on ";

/// A floor process of a measurement. It ends when this value is dropped, and with this process.
#[derive(Debug)]
pub(crate) struct FloorProcess {
    child: Child,
    pub(crate) broker: Broker,
}

impl FloorProcess {
    /// Starts this program again, as the floor.
    pub(crate) fn start(core: Option<usize>) -> Result<Self, Fault> {
        let program =
            std::env::current_exe().map_err(Fault::io("find the program of the floor"))?;
        let mut command = Command::new(program);
        command.arg("limit").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        let mut child = command.spawn().map_err(Fault::io("start the floor"))?;
        let address = listening_address(&mut child);
        let broker = address.map(|address| Broker::floor(address, child.id()));
        match broker {
            Ok(broker) => Ok(Self { child, broker }),
            Err(fault) => {
                // The process may have ended already.
                let _ = child.kill();
                let _ = child.wait();
                Err(fault)
            }
        }
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listening_address(child: &mut Child) -> Result<SocketAddr, Fault> {
    let stdout =
        child.stdout.take().ok_or_else(|| Fault::Process("no pipe to the floor".into()))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(Fault::io("hear from the floor"))?;
    let address = line.strip_prefix(LISTENING).and_then(|address| address.trim().parse().ok());
    address.ok_or_else(|| Fault::Process("the floor ended before it listened".to_owned()))
}

/// Serves as the floor until standard input ends.
pub(crate) fn serve(arguments: &FloorArguments) -> Result<(), Fault> {
    if !arguments.listen.ip().is_loopback() {
        return Err(Fault::Usage(format!(
            "the floor answers anybody who connects, so it listens on loopback only, not on {}",
            arguments.listen
        )));
    }
    let listener = TcpListener::bind(arguments.listen)
        .map_err(Fault::io(format!("listen on {}", arguments.listen)))?;
    let address = listener.local_addr().map_err(Fault::io("tell the address of the floor"))?;
    println!("{LISTENING}{address}");
    super::serve(listener, arguments.core)
}
