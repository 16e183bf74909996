//! Draws stacks from `perf` as a flame graph: one SVG file for a browser.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph::{self, Options};

use crate::fault::Fault;

/// The largest input: minutes of samples at the rate of `flamegraph.sh`. More would not improve the
/// picture.
const INPUT_BYTES_MAX: u64 = 1 << 30;

/// Draws the stacks of `input` into the SVG file `out`.
///
/// `input` is the output of `perf script`, where each stack counts once, or it consists of folded
/// stacks: `frame;frame;frame NUMBER` on each line, root first, with a number of microseconds (time
/// spent waiting, from `flamegraph.sh --off-cpu`).
pub(crate) fn write(input: &Path, out: &Path, title: &str) -> Result<(), Fault> {
    let text = read(input)?;
    // `perf script` prints a heading before each stack; folded stacks have none.
    let (folded, unit) = match Folder::default().is_applicable(&text) {
        Some(true) => (collapse(&text)?, "samples"),
        _ => (text, "µs"),
    };
    let total = total(&folded).ok_or_else(|| not_stacks(input))?;
    if total == 0 {
        return Err(empty(input));
    }
    let svg = draw(&folded, title, unit)?;
    // Written at once, because half a picture would look like a complete one.
    let mut file = File::create(out).map(BufWriter::new).map_err(Fault::io(show("create", out)))?;
    file.write_all(&svg).and_then(|()| file.flush()).map_err(Fault::io(show("write", out)))
}

fn read(input: &Path) -> Result<String, Fault> {
    let size_bytes = fs::metadata(input).map_err(Fault::io(show("read", input)))?.len();
    if size_bytes > INPUT_BYTES_MAX {
        return Err(Fault::Machine(format!(
            "{} has {size_bytes} octets, more than {INPUT_BYTES_MAX}: record for a shorter time, \
             or at a lower frequency (perf record -F)",
            input.display()
        )));
    }
    let bytes = fs::read(input).map_err(Fault::io(show("read", input)))?;
    // Thread names may contain any octets.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn collapse(text: &str) -> Result<String, Fault> {
    let mut folded = Vec::new();
    let action = "collapse the stacks of perf script";
    Folder::default().collapse(text.as_bytes(), &mut folded).map_err(Fault::io(action))?;
    Ok(String::from_utf8_lossy(&folded).into_owned())
}

/// The sum of the numbers at the ends of the lines; `None` if a line is not a folded stack.
fn total(folded: &str) -> Option<u64> {
    let mut sum = 0_u64;
    for line in folded.lines().filter(|line| !line.trim().is_empty()) {
        let (stack, number) = line.trim_end().rsplit_once(' ')?;
        if stack.is_empty() {
            return None;
        }
        sum = sum.checked_add(number.parse().ok()?)?;
    }
    Some(sum)
}

fn draw(folded: &str, title: &str, unit: &str) -> Result<Vec<u8>, Fault> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    unit.clone_into(&mut options.count_name);
    // A function has the same colour in every picture, so that two pictures can be compared.
    options.hash = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut svg)
        .map_err(Fault::io("draw the flame graph"))?;
    Ok(svg)
}

fn show(action: &str, path: &Path) -> String {
    format!("{action} {}", path.display())
}

fn empty(input: &Path) -> Fault {
    Fault::Machine(format!(
        "there is no stack in {}: perf saw nothing, was the broker idle?",
        input.display()
    ))
}

fn not_stacks(input: &Path) -> Fault {
    Fault::Machine(format!(
        "{} has no stacks in it: give what `perf script -F comm,tid,time,event,ip,sym,dso` \
         prints, or lines of `frame;frame NUMBER`",
        input.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERF_SCRIPT: &str = "\
shard-0 4242 10.000001: cpu-clock:u:
\t5570 leveret_broker::home::enqueue+0x10 (leveret)
\t5571 leveret_broker::shard::Shard::handle+0x20 (leveret)

shard-0 4242 10.001001: cpu-clock:u:
\t5570 leveret_broker::home::enqueue+0x10 (leveret)
\t5571 leveret_broker::shard::Shard::handle+0x20 (leveret)

control 4243 10.001002: cpu-clock:u:
\t5572 leveret_broker::control::turn+0x20 (leveret)

";

    fn drawn(input: &str) -> Result<String, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("in.txt"), folder.path().join("out.svg"));
        fs::write(&from, input).unwrap();
        write(&from, &to, "a <title>").map(|()| fs::read_to_string(to).unwrap())
    }

    #[test]
    fn perf_script_is_counted_by_stack_under_its_thread() {
        let svg = drawn(PERF_SCRIPT).unwrap();
        assert!(svg.contains("a &lt;title&gt;"), "{svg}");
        for frame in ["shard-0 (2 samples", "control (1 samples", "home::enqueue (2 samples"] {
            assert!(svg.contains(frame), "no {frame} in {svg}");
        }
    }

    #[test]
    fn folded_stacks_are_microseconds() {
        let svg = drawn("shard-0;wait 1500\nshard-0;read it 500\n").unwrap();
        for frame in ["shard-0 (2,000 µs", "wait (1,500 µs", "read it (500 µs"] {
            assert!(svg.contains(frame), "no {frame} in {svg}");
        }
    }

    #[test]
    fn what_is_no_stack_is_refused() {
        for text in ["nonsense", "frame;frame x", "12", "a;b 18446744073709551615\nc 1"] {
            let fault = drawn(text).unwrap_err().to_string();
            assert!(fault.contains("no stacks in it"), "{text}: {fault}");
        }
        for text in ["", "# only a heading\n\n", "a;b 0\n"] {
            let fault = drawn(text).unwrap_err().to_string();
            assert!(fault.contains("no stack"), "{text}: {fault}");
        }
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.txt");
        let fault = write(&missing, &folder.path().join("out.svg"), "t").unwrap_err().to_string();
        assert!(fault.contains("missing.txt"), "{fault}");
    }
}
