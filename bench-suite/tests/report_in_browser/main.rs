//! Opens a report in a real browser and measures what it built of it.
//!
//! Run with `cargo browser`; it needs Chromium.

#![allow(clippy::unwrap_used)] // all of this file is a test

mod fixture;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

/// Loads the report beside itself and writes into its own document what it finds there.
const PROBE: &str = r#"<!DOCTYPE html>
<meta charset="utf-8"><pre id="found"></pre>
<iframe id="report" src="/report.html" style="width:1000px;height:4000px"></iframe>
<script>
document.getElementById("report").addEventListener("load", event => {
  const page = event.target.contentDocument;
  const box = element => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return { left, top, right, bottom };
  };
  const plots = [...page.querySelectorAll("svg[data-plot]")].map(svg => ({
    id: svg.id, kind: svg.dataset.plot, label: svg.getAttribute("aria-label"), box: box(svg),
    lines: [...svg.querySelectorAll("polyline")].filter(line => line.points.numberOfItems > 2)
      .map(line => line.getTotalLength()),
    bars: [...svg.querySelectorAll("rect")].map(bar => ({
      ...box(bar), fill: getComputedStyle(bar).fill })),
    texts: [...svg.querySelectorAll("text")].map(text => ({
      ...box(text), text: text.textContent.trim() })),
  }));
  const tables = [...page.querySelectorAll("table")].map(table => table.rows.length);
  const dangling = [...page.querySelectorAll("a[href^='#']")].map(link => link.hash.slice(1))
    .filter(id => !page.getElementById(id));
  const ids = [...page.querySelectorAll("[id]")].map(element => element.id);
  const found = { plots, tables, dangling, text: page.body.innerText,
    twice: ids.filter((id, index) => ids.indexOf(id) !== index),
    width: page.documentElement.scrollWidth,
    requests: event.target.contentWindow.performance.getEntriesByType("resource").length };
  document.getElementById("found").textContent = encodeURIComponent(JSON.stringify(found));
});
</script>"#;

/// A report that is worth to be shown has this many scenarios at least.
const SCENARIOS_MIN: usize = 8;

#[test]
fn the_browser_builds_every_plot_of_the_report() {
    let directory = tempfile::tempdir().unwrap();
    write_report(directory.path());
    let found = probe(directory.path());
    let plots = found["plots"].as_array().unwrap();
    let ids: Vec<&str> = plots.iter().map(|plot| plot["id"].as_str().unwrap()).collect();
    let expected = [
        "overview-main",
        "overview-per-cpu",
        "overview-p99",
        "s1-small-bars",
        "s1-small-rates",
        "s1-small-percentiles-delivery",
        "s1-small-percentiles-confirm",
        "s1-small-cpu",
        "s2-durable-bars",
        "s2-durable-rates",
        "s2-durable-percentiles-delivery",
        "s2-durable-percentiles-confirm",
        "s2-durable-cpu",
    ];
    assert_eq!(ids, expected);
    for plot in plots {
        assert_drawn(plot);
        assert_readable(plot);
    }
    assert_lines_of_runs(plots);
    assert_eq!(found["dangling"], serde_json::json!([]), "links that lead nowhere");
    assert_eq!(found["twice"], serde_json::json!([]), "ids that are there twice");
    assert_eq!(found["requests"], 0, "the page asked for something");
    assert!(found["width"].as_f64().unwrap() <= 1_000.0, "the page must not scroll sideways");
    let text = found["text"].as_str().unwrap();
    for said in ["10.0 ×", "How to read this page", fixture::FAULT, fixture::NAME, "4 of 5"] {
        assert!(text.contains(said), "{said} is not on the page");
    }
}

#[test]
fn the_browser_paints_the_report_in_light_and_dark() {
    let directory = tempfile::tempdir().unwrap();
    write_report(directory.path());
    let mut pictures = Vec::new();
    for (name, settings) in [("light.png", ""), ("dark.png", "preferredColorScheme=0")] {
        let picture = directory.path().join(name);
        let mut arguments = vec![
            format!("--screenshot={}", picture.display()),
            "--window-size=1100,7000".to_owned(),
            "--hide-scrollbars".to_owned(),
        ];
        if !settings.is_empty() {
            arguments.push(format!("--blink-settings={settings}"));
        }
        let page = format!("file://{}", directory.path().join("report.html").display());
        chromium(&arguments, &page);
        pictures.push(fs::read(&picture).unwrap());
        // For people who want to look at it.
        if let Some(keep) = std::env::var_os("REPORT_SCREENSHOTS") {
            fs::copy(&picture, Path::new(&keep).join(name)).unwrap();
        }
    }
    for picture in &pictures {
        assert!(picture.starts_with(b"\x89PNG"), "no picture");
    }
    assert_ne!(pictures[0], pictures[1], "dark mode looks as light mode does");
}

#[test]
fn the_report_in_the_documentation_has_its_plots() {
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report/report.html");
    let directory = tempfile::tempdir().unwrap();
    fs::copy(documentation, directory.path().join("report.html")).unwrap();
    let found = probe(directory.path());
    let plots = found["plots"].as_array().unwrap();
    let of_kind = |kind: &str| plots.iter().filter(|plot| plot["kind"] == kind).count();
    for kind in ["bars", "rates", "percentiles", "cpu"] {
        assert!(of_kind(kind) >= SCENARIOS_MIN, "{} plots of {kind}", of_kind(kind));
    }
    for plot in plots {
        assert_framed(plot);
        let is_wide = |bar: &Value| number(bar, "right") - number(bar, "left") > 1.0;
        let is_long = |length: &Value| length.as_f64().is_some_and(|length| length > 100.0);
        // A ratio of just 1 has a bar without a width; no plot has nothing else.
        let shows = plot["bars"].as_array().unwrap().iter().any(is_wide)
            || plot["lines"].as_array().unwrap().iter().any(is_long);
        assert!(shows, "{} is empty", plot["id"]);
    }
    assert_eq!(found["requests"], 0, "the page asked for something");
    let text = found["text"].as_str().unwrap();
    for subject in ["leveret", "rabbitmq", "floor"] {
        assert!(text.contains(subject), "{subject} is not in the report");
    }
}

/// The real program makes the report out of results that this test wrote by hand.
fn write_report(directory: &Path) {
    let results = directory.join("fixture.json");
    fs::write(&results, fixture::results().to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_leveret-bench"))
        .args(["report".as_ref(), results.as_os_str(), "--out".as_ref(), directory.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is missing in {value}"))
}

/// A plot has a size and a name.
fn assert_framed(plot: &Value) {
    let (id, frame) = (&plot["id"], &plot["box"]);
    assert!(number(frame, "right") - number(frame, "left") > 500.0, "{id} has no width");
    assert!(number(frame, "bottom") - number(frame, "top") > 50.0, "{id} has no height");
    assert!(!plot["label"].as_str().unwrap().is_empty(), "{id} has no label");
}

/// What a plot of the fixture shows has a size too and lies within it.
fn assert_drawn(plot: &Value) {
    assert_framed(plot);
    let id = &plot["id"];
    let bars = plot["bars"].as_array().unwrap();
    let lines = plot["lines"].as_array().unwrap();
    if matches!(plot["kind"].as_str().unwrap(), "bars" | "cpu") {
        assert!(bars.len() >= 2, "{id} has {} bars", bars.len());
        for bar in bars {
            assert!(number(bar, "right") > number(bar, "left"), "{id} has an empty bar");
            assert_inside(plot, bar);
            assert_ne!(bar["fill"], "rgb(0, 0, 0)", "{id} has a bar without its colour");
        }
    } else {
        let long = lines.iter().filter(|length| length.as_f64().unwrap() > 100.0).count();
        assert!(long >= 14, "{id} has {long} lines, but there were 14 valid runs");
    }
}

/// No text leaves the plot, and no two texts lie upon each other.
fn assert_readable(plot: &Value) {
    let texts = plot["texts"].as_array().unwrap();
    assert!(texts.len() > 4, "{} has hardly any text", plot["id"]);
    for (index, text) in texts.iter().enumerate() {
        assert_inside(plot, text);
        for other in &texts[index + 1..] {
            // Boxes of letters have air above and below, which may overlap.
            let is_beside = number(text, "right") <= number(other, "left")
                || number(other, "right") <= number(text, "left");
            let is_apart = number(text, "bottom") <= number(other, "top") + 4.0
                || number(other, "bottom") <= number(text, "top") + 4.0;
            assert!(is_beside || is_apart, "{}: {text} lies upon {other}", plot["id"]);
        }
    }
}

fn assert_inside(plot: &Value, part: &Value) {
    let frame = &plot["box"];
    let is_inside = number(part, "left") >= number(frame, "left") - 1.0
        && number(part, "right") <= number(frame, "right") + 1.0
        && number(part, "top") >= number(frame, "top") - 1.0
        && number(part, "bottom") <= number(frame, "bottom") + 1.0;
    assert!(is_inside, "{}: {part} is outside of {frame}", plot["id"]);
}

/// Every valid run has its curve, the failed one has none.
fn assert_lines_of_runs(plots: &[Value]) {
    let curves = |id: &str| {
        let plot = plots.iter().find(|plot| plot["id"] == id).unwrap();
        plot["lines"].as_array().unwrap().len()
    };
    assert_eq!(curves("s2-durable-percentiles-delivery"), 15);
    assert_eq!(curves("s1-small-percentiles-delivery"), 14);
    assert_eq!((curves("s2-durable-rates"), curves("s1-small-rates")), (15, 14));
}

/// What [`PROBE`] found in the report of this directory.
fn probe(directory: &Path) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let page = format!("http://{}/probe.html", listener.local_addr().unwrap());
    let report = fs::read_to_string(directory.join("report.html")).unwrap();
    // It ends with the test: nobody else knows its port.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let report = report.clone();
            thread::spawn(move || answer(stream.unwrap(), &report));
        }
    });
    let arguments = ["--dump-dom".to_owned(), "--virtual-time-budget=10000".to_owned()];
    let document = chromium(&arguments, &page);
    let found = document.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split('<').next());
    let found = found.unwrap_or_else(|| panic!("the probe was not loaded: {document}"));
    assert!(!found.is_empty(), "the report was not loaded by the probe: {document}");
    serde_json::from_slice(&percent_decoded(found)).unwrap()
}

fn answer(mut stream: TcpStream, report: &str) {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    // A browser may open a connection ahead of need and never use it.
    if reader.read_line(&mut request).is_err() {
        return;
    }
    let mut header = String::new();
    while reader.read_line(&mut header).is_ok_and(|length| length > 2) {
        header.clear();
    }
    let (status, content) = match request.split(' ').nth(1) {
        Some("/probe.html") => ("200 OK", PROBE),
        Some("/report.html") => ("200 OK", report),
        _ => ("404 Not Found", ""),
    };
    let length = content.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\
         \r\nConnection: close\r\n\r\n"
    );
    // The browser may go away before it has all.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content.as_bytes()));
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap().to_owned();
            octets.push(u8::from_str_radix(&digits, 16).unwrap());
        } else {
            octets.push(octet);
        }
    }
    octets
}

/// Runs Chromium without a window and gives back its standard output.
fn chromium(arguments: &[String], page: &str) -> String {
    let profile = TempDir::new().unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(page)
        .output()
        .unwrap_or_else(|fault| {
            panic!("cannot start Chromium ({fault}); install it: apt-get install chromium")
        });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Chromium failed: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
