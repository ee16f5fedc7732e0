//! A run over time, for Perfetto (<https://ui.perfetto.dev>) and `chrome://tracing`: a lane a machine.
//!
//! Owns the shape of that file (Chrome's trace event format, JSON). Owns no time of its own: spans are those of
//! `model::Timeline` and of the tests. Spans of one lane lie inside each other or apart, as the viewers demand: what
//! overlaps, such as parallel subtests, goes to a further lane of the machine. To show another kind of span: give it a
//! place in `spans`.

use serde_json::{Value, json};

use crate::mask::Masks;
use crate::model::{MachineLane, Run, SpanKind, result_name};

/// The only process there is.
const PROCESS: u32 = 1;

/// One rectangle: milliseconds into the run.
#[derive(Debug, Clone)]
struct Bar {
    start: u64,
    end: u64,
    name: String,
    category: &'static str,
    args: Value,
}

/// The trace as text.
pub fn text(run: &Run, masks: &Masks) -> Result<String, serde_json::Error> {
    let mut events = vec![named("process_name", 0, &format!("kmt-run {}", run.id))];
    let mut lane = 0;
    for (arch, (start, end)) in &run.timeline.builds {
        lane += 1;
        events.push(named("thread_name", lane, &format!("build {arch}")));
        let name = format!("build {arch}");
        let end = end.unwrap_or(run.elapsed_ms);
        events.push(bar(lane, &Bar { start: *start, end, name, category: "build", args: json!({}) }));
    }
    for (machine, of) in &run.timeline.machines {
        let tracks = packed(bars(run, machine, of));
        for (index, track) in tracks.iter().enumerate() {
            lane += 1;
            let further = if index == 0 { String::new() } else { format!(" ({})", index + 1) };
            events.push(named("thread_name", lane, &format!("{} {machine}{further}", of.cell)));
            events.push(json!({"ph": "M", "pid": PROCESS, "tid": lane, "name": "thread_sort_index",
                "args": {"sort_index": lane}}));
            events.extend(track.iter().map(|it| bar(lane, it)));
            if let Some(lost) = of.lost_ms.filter(|_| index == 0) {
                events.push(
                    json!({"ph": "i", "s": "t", "pid": PROCESS, "tid": lane, "ts": lost.saturating_mul(1000),
                    "name": "machine lost", "cat": "machine"}),
                );
            }
        }
    }
    let value = json!({
        "displayTimeUnit": "ms",
        "otherData": {"schema": 1, "run": run.id, "started": run.started, "version": run.version},
        "traceEvents": events,
    });
    let mut text = serde_json::to_string(&masks.mask_json(value, &["ph", "cat"]))?;
    text.push('\n');
    Ok(text)
}

fn named(what: &str, lane: u32, name: &str) -> Value {
    json!({"ph": "M", "pid": PROCESS, "tid": lane, "name": what, "args": {"name": name}})
}

fn bar(lane: u32, bar: &Bar) -> Value {
    json!({
        "ph": "X", "pid": PROCESS, "tid": lane, "ts": bar.start.saturating_mul(1000),
        "dur": (bar.end - bar.start).saturating_mul(1000),
        "name": bar.name, "cat": bar.category, "args": bar.args,
    })
}

/// What a machine did, as rectangles.
fn bars(run: &Run, machine: &str, lane: &MachineLane) -> Vec<Bar> {
    let last = lane.lost_ms.unwrap_or(run.elapsed_ms);
    let mut bars = Vec::new();
    let mut add = |start: u64, end: u64, name: &str, category, args| {
        bars.push(Bar { start, end: end.max(start), name: name.to_owned(), category, args });
    };
    for span in &lane.spans {
        let category = match span.kind {
            SpanKind::Boot => "boot",
            SpanKind::Ship => "ship",
            SpanKind::Package => "package",
        };
        add(span.start_ms, span.end_ms.unwrap_or(last), &span.name, category, json!({"failed": span.failed}));
    }
    for (index, (phase, start)) in lane.phases.iter().enumerate() {
        let boot =
            lane.spans.iter().rev().find(|span| span.kind == SpanKind::Boot && span.start_ms <= *start);
        let until = boot.and_then(|boot| boot.end_ms).unwrap_or(last);
        let next = lane.phases.get(index + 1).map_or(until, |(_, next)| (*next).min(until));
        add(*start, next, phase.as_str(), "phase", json!({}));
    }
    let packages = run.cell(&lane.cell).into_iter().flat_map(|cell| &cell.packages);
    for (name, package) in packages {
        for (test, attempts) in package.tests.iter() {
            for attempt in attempts.iter() {
                let shard = attempt.shard.and_then(|index| package.shards.get(index));
                let Some(shard) = shard.filter(|shard| shard.machine == machine) else { continue };
                let bound = shard.ended.as_ref().map_or(last, |ended| ended.ended_ms);
                let (end, result) = match &attempt.ended {
                    Some(ended) => {
                        (attempt.started_ms.saturating_add(ended.duration_ms), result_name(ended.result))
                    }
                    None => (bound, "no end"),
                };
                let args = json!({"package": name, "result": result, "attempt": attempt.number});
                add(attempt.started_ms, end.min(bound.max(attempt.started_ms)), test, "test", args);
            }
        }
    }
    bars
}

/// Lays rectangles into lanes so that those of one lane lie inside each other or apart.
fn packed(mut bars: Vec<Bar>) -> Vec<Vec<Bar>> {
    bars.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)).then(a.name.cmp(&b.name)));
    let mut tracks: Vec<(Vec<Bar>, Vec<u64>)> = Vec::new();
    for bar in bars {
        let fits = |(_, open): &mut (Vec<Bar>, Vec<u64>)| {
            while open.last().is_some_and(|end| *end <= bar.start) {
                open.pop();
            }
            open.last().is_none_or(|end| bar.end <= *end)
        };
        let at = tracks.iter_mut().position(fits).unwrap_or_else(|| {
            tracks.push((Vec::new(), Vec::new()));
            tracks.len() - 1
        });
        let (track, open) = &mut tracks[at];
        open.push(bar.end);
        track.push(bar);
    }
    tracks.into_iter().map(|(track, _)| track).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::script::{bookworm, runs};

    fn parsed(text: &str) -> Vec<Value> {
        let value: Value = serde_json::from_str(text).unwrap();
        value["traceEvents"].as_array().unwrap().clone()
    }

    #[test]
    fn every_machine_has_a_lane_and_spans_nest() {
        for (name, script) in runs::all() {
            let run = script.run();
            let events = parsed(&text(&run, &Masks::default()).unwrap());
            let mut lanes: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
            for event in events.iter().filter(|event| event["ph"] == "X") {
                let (start, dur) = (event["ts"].as_u64().unwrap(), event["dur"].as_u64().unwrap());
                lanes.entry(event["tid"].as_u64().unwrap()).or_default().push((start, start + dur));
            }
            for spans in lanes.values() {
                for (a, b) in
                    spans.iter().enumerate().flat_map(|(i, a)| spans[i + 1..].iter().map(move |b| (a, b)))
                {
                    let apart = a.1 <= b.0 || b.1 <= a.0;
                    let inside = (a.0 <= b.0 && b.1 <= a.1) || (b.0 <= a.0 && a.1 <= b.1);
                    assert!(apart || inside, "{name}: {a:?} {b:?}");
                }
            }
            let names: Vec<_> = events.iter().filter(|event| event["name"] == "thread_name").collect();
            assert!(names.len() >= run.timeline.machines.len(), "{name}");
        }
    }

    #[test]
    fn a_lane_holds_boot_phases_packages_and_tests() {
        let events = parsed(&text(&runs::failing().run(), &Masks::default()).unwrap());
        let lane = events
            .iter()
            .find(|event| {
                event["name"] == "thread_name"
                    && event["args"]["name"].as_str().unwrap().starts_with(&bookworm().to_string())
            })
            .unwrap()["tid"]
            .clone();
        let names: Vec<_> = events
            .iter()
            .filter(|event| event["ph"] == "X" && event["tid"] == lane)
            .map(|event| event["name"].as_str().unwrap())
            .collect();
        for name in ["boot", "kernel", "ship", "pkg/network/tracer", "TestDNS", "TestDNS/udp/v6"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
    }

    #[test]
    fn what_overlaps_goes_to_a_further_lane() {
        let bar = |start, end| Bar { start, end, name: String::new(), category: "test", args: json!({}) };
        let tracks = packed(vec![bar(0, 10), bar(2, 8), bar(4, 9), bar(20, 30)]);
        let lengths: Vec<_> = tracks.iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 1]);
    }

    #[test]
    fn secrets_do_not_show() {
        let text = text(&runs::green().run(), &Masks::new(["TestProgLoad"])).unwrap();
        assert!(text.contains("[masked]") && !text.contains("TestProgLoad"));
    }
}
