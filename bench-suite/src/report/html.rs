//! The report for people: one file without scripts and without external requests.

use std::fmt::{self, Write as _};

use crate::fault::Fault;
use crate::report::markdown::{list, writer};
use crate::report::pictures::{self, Picture};
use crate::report::text::{self, html as escape};
use crate::report::{figures, plot};
use crate::results::{Results, ScenarioResult};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn html(results: &Results) -> Result<String, Fault> {
    let mut page = String::new();
    write_page(&mut page, results).map_err(|_| {
        Fault::Machine(
            "a plot of the report cannot be drawn: a defect of leveret-bench, please report it; \
             results.json is whole"
                .to_owned(),
        )
    })?;
    Ok(page)
}

fn write_page(out: &mut String, results: &Results) -> fmt::Result {
    let names: Vec<_> = results.subjects.iter().map(|subject| escape(&subject.name)).collect();
    let title = format!("Load test of {}", names.join(", "));
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"soft\">Measured on {}, with leveret-bench {}.</p>\n",
        text::date(results.environment.started_unix_s),
        escape(&results.bench_version)
    )?;
    write_introduction(out, results)?;
    write_contents(out, results)?;
    write_overview(out, results)?;
    for (index, scenario) in results.scenarios.iter().enumerate() {
        write_scenario(out, results, scenario, &anchor(index, scenario))?;
    }
    write_failures(out, results)?;
    write_environment(out, results)?;
    out.write_str("</main>\n</body>\n</html>\n")
}

/// Names of files may be equal once they are turned into an anchor; their indexes are not.
fn anchor(index: usize, scenario: &ScenarioResult) -> String {
    format!("s{}-{}", index + 1, text::slug(&scenario.name))
}

fn write_introduction(out: &mut String, results: &Results) -> fmt::Result {
    let base = escape(&results.subjects[0].name);
    out.write_str(
        "<p>A message broker takes messages from programs that publish them, keeps them in queues, \
         and hands them to programs that consume them. This page shows how fast the brokers below \
         do that, how much computing time they need for it, and how long a message is under way. \
         Every broker got the same load, from the same program, on the same machine.</p>\n\
         <p>Every message carries a number and a checksum. The load program checks that each one \
         arrives once, whole and in order. A run in which this was not so counts as failed, and \
         none of its figures is used.</p>\n",
    )?;
    if results.subjects.len() < 2 {
        out.write_str(
            "<p class=\"warning\"><b>Only one subject was measured.</b> Without a second one on \
             the same machine at the same time there are no ratios, and these figures mean little \
             on any other machine.</p>\n",
        )?;
    }
    out.write_str("<h2 id=\"reading\">How to read this page</h2>\n<dl>\n")?;
    let mut term = |term: &str, meaning: &str| writeln!(out, "<dt>{term}</dt><dd>{meaning}</dd>");
    term("run", "One measurement of one subject, some seconds long, after a warm-up.")?;
    term(
        "median (lowest – highest)",
        "The value in the middle of all valid runs, and how far the runs lay apart. Where the two \
         ends are far apart, the machine was restless: trust small differences less.",
    )?;
    term(
        "interleaving",
        "The subjects take turns: run 1 of each, then run 2 of each, and so on. When the machine \
         is slower for a while, it is slower for all of them.",
    )?;
    if results.subjects.len() > 1 {
        term(
            "ratio (×)",
            &format!(
                "A figure as a multiple of the same figure of {base}: run 1 is compared with run \
                 1, run 2 with run 2; the middle one of these ratios is shown. 2 × is twice as \
                 much, 0.5 × is half. A ratio holds on other machines much better than a figure."
            ),
        )?;
    }
    if figures::floor(results).is_some() {
        term(
            "the floor",
            "A bare relay: it passes the same octets on and does nothing of what makes a broker. \
             What it costs, the kernel's network costs. The share of the floor says how much of \
             what is possible here was reached; a share above 100 % means that the subject waits \
             or gathers its work more cleverly than the relay.",
        )?;
    }
    term(
        "broker CPU second",
        "One core of the processor, busy for one second on behalf of the broker. Messages per \
         broker CPU second say what the work costs, even where the load program was too slow to \
         keep the broker busy.",
    )?;
    term(
        "p50, p99, p99.9",
        "Percentiles: p99 is the time that 99 of 100 did not exceed. The slowest ones are what \
         users notice. Times count from when a message should have been sent, so that a stalled \
         broker cannot hide the waiting.",
    )?;
    term("µs, ms", "A millionth and a thousandth of a second.")?;
    out.write_str("</dl>\n")
}

fn write_contents(out: &mut String, results: &Results) -> fmt::Result {
    out.write_str("<nav aria-label=\"Contents\">\n<h2>Contents</h2>\n<ul>\n")?;
    out.write_str("<li><a href=\"#overview\">Overview</a></li>\n")?;
    for (index, scenario) in results.scenarios.iter().enumerate() {
        let id = anchor(index, scenario);
        writeln!(out, "<li><a href=\"#{id}\">{}</a></li>", escape(&scenario.title))?;
    }
    out.write_str(
        "<li><a href=\"#failed\">Failed runs</a></li>\n\
         <li><a href=\"#environment\">Machine and subjects</a></li>\n</ul>\n</nav>\n",
    )
}

fn write_overview(out: &mut String, results: &Results) -> fmt::Result {
    out.write_str("<h2 id=\"overview\">Overview</h2>\n")?;
    let mut rows = Vec::new();
    for scenario in &results.scenarios {
        let headlines = figures::headlines(scenario).into_iter();
        rows.extend(headlines.map(|(_, measure)| (scenario, measure)));
    }
    write_table(out, results, &rows, true)?;
    for picture in pictures::overview(results)? {
        write_picture(out, results, &picture)?;
    }
    Ok(())
}

fn write_scenario(
    out: &mut String,
    results: &Results,
    scenario: &ScenarioResult,
    id: &str,
) -> fmt::Result {
    writeln!(out, "<h2 id=\"{id}\">{}</h2>", escape(&scenario.title))?;
    writeln!(out, "<p class=\"question\">{}</p>", escape(&scenario.question))?;
    for subject in figures::client_limited(results, scenario) {
        writeln!(
            out,
            "<p class=\"warning\"><b>{}: the load client was the limit here, not the broker.</b> \
             The busiest thread of the load program had no time left while the broker had. Its \
             messages per second are a lower bound; messages per broker CPU second still hold.</p>",
            escape(&subject.name)
        )?;
    }
    for picture in pictures::of_scenario(results, scenario, id)? {
        write_picture(out, results, &picture)?;
    }
    out.write_str("<h3>All figures</h3>\n")?;
    let present = figures::present(scenario).into_iter();
    let rows: Vec<Row<'_>> = present.map(|measure| (scenario, measure)).collect();
    write_table(out, results, &rows, false)?;
    write_messages(out, results, scenario)?;
    write!(
        out,
        "<details><summary>The scenario file</summary>\n<p class=\"soft\">{}; load client driven \
         by {}.</p>\n<pre>{}</pre></details>\n",
        escape(&scenario.name),
        escape(&scenario.transport),
        escape(&scenario.definition)
    )
}

type Row<'a> = (&'a ScenarioResult, figures::Measure);

/// A table with one column per subject; each cell has the ratio first, then the share of the floor,
/// then the figure.
fn write_table(
    out: &mut String,
    results: &Results,
    rows: &[Row<'_>],
    has_scenarios: bool,
) -> fmt::Result {
    let corner = if has_scenarios { "scenario and figure" } else { "figure" };
    write!(out, "<div class=\"wide\"><table>\n<thead><tr><th>{corner}</th>")?;
    for (index, subject) in results.subjects.iter().enumerate() {
        let role = match (subject.is_floor, index) {
            (true, _) => "<small>the floor</small>",
            (false, 0) if results.subjects.len() > 1 => "<small>the base, 1 ×</small>",
            _ => "",
        };
        let ink = plot::variable(pictures::ink(results, index));
        write!(
            out,
            "<th><span class=\"swatch\" style=\"background:var({ink})\"></span>{}{role}</th>",
            escape(&subject.name)
        )?;
    }
    out.write_str("</tr></thead>\n<tbody>\n")?;
    for (scenario, measure) in rows {
        out.write_str("<tr><td>")?;
        if has_scenarios {
            write!(out, "<b>{}</b>", escape(&scenario.name))?;
        }
        write!(out, "{}</td>", escape(&measure.label()))?;
        for subject in 0..results.subjects.len() {
            let cell = figures::cell(results, scenario, subject, measure);
            write_cell(out, cell, writer(measure))?;
        }
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody></table></div>\n")
}

fn write_cell(
    out: &mut String,
    cell: Option<figures::Cell>,
    write: fn(f64) -> String,
) -> fmt::Result {
    let Some(cell) = cell else { return out.write_str("<td>–</td>") };
    out.write_str("<td>")?;
    if let Some(ratio) = cell.ratio {
        write!(out, "<b>{}</b>", text::ratio(ratio.median))?;
        let (low, high) = (text::ratio(ratio.lowest), text::ratio(ratio.highest));
        if low != high {
            write!(out, "<small>({low} – {high})</small>")?;
        }
    }
    if let Some(share) = cell.share {
        write!(out, "<small>{} of the floor</small>", text::share(share.median))?;
    }
    out.write_str(&write(cell.value.median))?;
    let (low, high) = (write(cell.value.lowest), write(cell.value.highest));
    if low != high {
        write!(out, "<small>({low} – {high})</small>")?;
    }
    out.write_str("</td>")
}

fn write_messages(out: &mut String, results: &Results, scenario: &ScenarioResult) -> fmt::Result {
    out.write_str(
        "<h3>Runs and messages</h3>\n<div class=\"wide\"><table>\n<thead><tr><th>subject</th>\
         <th>valid runs</th><th>published</th><th>expected</th><th>lost</th><th>duplicated</th>\
         <th>reordered</th><th>corrupted</th><th>foreign</th></tr></thead>\n<tbody>\n",
    )?;
    for (index, subject) in results.subjects.iter().enumerate() {
        let (valid, all) = figures::valid_runs(scenario, index);
        write!(out, "<tr><td>{}</td><td>{valid} of {all}</td>", escape(&subject.name))?;
        match figures::messages(scenario, index) {
            None => out.write_str("<td>–</td>".repeat(7).as_str())?,
            Some(all) => {
                let delivered = [all.published, all.expected, all.lost, all.duplicated];
                let spoiled = [all.reordered, all.corrupted, all.foreign];
                for count in delivered.into_iter().chain(spoiled) {
                    write!(out, "<td>{}</td>", text::count(count))?;
                }
            }
        }
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody></table></div>\n")
}

fn write_picture(out: &mut String, results: &Results, picture: &Picture) -> fmt::Result {
    out.write_str("<figure>\n<ul class=\"legend\">")?;
    for subject in &picture.subjects {
        let ink = plot::variable(pictures::ink(results, *subject));
        write!(
            out,
            "<li><span class=\"swatch\" style=\"background:var({ink})\"></span>{}</li>",
            escape(&results.subjects[*subject].name)
        )?;
    }
    write!(
        out,
        "</ul>\n<div class=\"wide\">{}</div>\n<figcaption>{}</figcaption>\n</figure>\n",
        picture.svg,
        escape(&picture.caption)
    )
}

fn write_failures(out: &mut String, results: &Results) -> fmt::Result {
    out.write_str("<h2 id=\"failed\">Failed runs</h2>\n")?;
    let failures = figures::failures(results);
    if failures.is_empty() {
        return out.write_str("<p>None.</p>\n");
    }
    out.write_str("<p>They contribute to no figure and to no plot on this page.</p>\n<ul>\n")?;
    for (place, fault) in failures {
        writeln!(out, "<li><b>{}</b>: {}</li>", escape(&place), escape(fault))?;
    }
    out.write_str("</ul>\n")
}

fn write_environment(out: &mut String, results: &Results) -> fmt::Result {
    let environment = &results.environment;
    out.write_str("<h2 id=\"environment\">Machine and subjects</h2>\n<dl>\n")?;
    let mut term = |term: &str, text: &str| {
        writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(term), escape(text))
    };
    let cores = format!("{} cores, {}", environment.cores_online, environment.cpu_model);
    term("Processor", &cores)?;
    term("Memory", &format!("{} bytes", text::count(environment.memory_total_bytes)))?;
    term("Kernel", &environment.kernel)?;
    term("Scaling governor", environment.governor.as_deref().unwrap_or("none, or hidden"))?;
    let [one, five, fifteen] = environment.load_average;
    let load = format!("{one:.2}, {five:.2}, {fifteen:.2} over 1, 5 and 15 minutes");
    term("Load before", &load)?;
    term("Revision", environment.commit.as_deref().unwrap_or("unknown"))?;
    match environment.load_cores.as_slice() {
        [] => term("Load program", "not pinned to cores")?,
        cores => term("Load program", &format!("on cores {}", list(cores)))?,
    }
    for subject in &results.subjects {
        let mut text = format!("{} at {}", subject.product, subject.address);
        if let Some(cores) = &subject.cores {
            write!(text, "; cores {cores}")?;
        }
        if let Some(bytes) = subject.rss_bytes {
            write!(text, "; {} bytes resident before the first run", text::count(bytes))?;
        }
        if let Some(command) = &subject.command {
            write!(text, "; started as: {command}")?;
        }
        term(&subject.name, &text)?;
    }
    out.write_str("</dl>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::results;

    #[test]
    fn the_page_asks_nothing_of_anybody() {
        let page = html(&results()).unwrap();
        for foreign in ["<script", "<link", "@import", "url(", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http:") && !elsewhere.contains("https:"));
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn foreign_texts_are_escaped_everywhere() {
        let mut results = results();
        let evil = "<img src=x onerror=alert(1)>\"'&";
        results.bench_version = evil.to_owned();
        results.environment.cpu_model = evil.to_owned();
        results.environment.kernel = evil.to_owned();
        results.environment.commit = Some(evil.to_owned());
        for subject in &mut results.subjects {
            (subject.name, subject.product) = (evil.to_owned(), evil.to_owned());
            (subject.address, subject.command) = (evil.to_owned(), Some(evil.to_owned()));
        }
        let scenario = &mut results.scenarios[0];
        (scenario.name, scenario.title) = (evil.to_owned(), evil.to_owned());
        (scenario.question, scenario.definition) = (evil.to_owned(), evil.to_owned());
        scenario.transport = evil.to_owned();
        scenario.runs[0].fault = Some(evil.to_owned());
        let page = html(&results).unwrap();
        assert!(!page.contains("<img"), "{page}");
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;"));
    }

    #[test]
    fn failed_runs_are_listed_and_give_no_figure() {
        let mut results = results();
        results.scenarios[0].runs[1].fault = Some("lost 3 messages".to_owned());
        results.scenarios[0].runs[1].metrics.insert("messages_per_s".to_owned(), 9e9);
        let page = html(&results).unwrap();
        assert!(page.contains("<b>small, leveret, run 1</b>: lost 3 messages"));
        assert!(page.contains("2 of 3"));
        assert!(!page.contains("9,000,000,000"));
    }

    #[test]
    fn links_of_the_contents_lead_somewhere() {
        let page = html(&results()).unwrap();
        let links: Vec<&str> = page.split("href=\"#").skip(1).collect();
        assert_eq!(links.len(), 4);
        for link in links {
            let id = link.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
}
