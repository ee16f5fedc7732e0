//! `report`: a recorded run told again, compared, or made one file.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use kmt_reporters::compare;
use kmt_reporters::junit::{self, Flavour};
use kmt_reporters::model::Run;
use kmt_reporters::terminal::{Terminal, Verbosity, difference};
use kmt_reporters::{Masks, RunDirectory, html, json, markdown, plural, trace};

use super::{print, reports, reproduce};
use crate::cli::report::{Report, To};
use crate::error::{Failure, Kind, Result};
use crate::record::export;
use crate::record::recorded::Recorded;
use crate::settings::Home;

/// Tells a run again.
///
/// # Errors
/// There is no such run, or what is told cannot be written.
pub(super) fn report(args: &Report) -> Result<u8> {
    if let (Some(file), Some(consumer)) = (&args.lint, &args.consumer) {
        return linted(args, file, consumer);
    }
    let home = Home::find()?;
    let recorded = Recorded::find(&home, args.run.as_deref())?;
    if let Some(file) = &args.export {
        return exported(&recorded, file);
    }
    if let Some(other) = &args.diff {
        let other = match other.as_str() {
            "previous" => recorded.before(&home)?,
            other => Recorded::find(&home, Some(other))?,
        };
        return compared(args, &other.run()?, &recorded.run()?);
    }
    if args.to == To::Terminal && !args.reproduce {
        return terminal(args, &recorded);
    }
    let run = recorded.run()?;
    if args.reproduce {
        return reproduced(args, &run, &home);
    }
    let output = RunDirectory(recorded.folder().to_path_buf());
    let none = Masks::default();
    let unserialized = |error: &dyn std::error::Error| {
        Failure::new(Kind::Internal, "the report cannot be serialized").caused_by(error)
    };
    let text = match args.to {
        To::Terminal => return terminal(args, &recorded),
        To::Junit => {
            let flavour: Flavour = args
                .flavour
                .parse()
                .map_err(|error: junit::UnknownFlavour| Failure::usage(error.to_string()))?;
            if let Some(path) = &args.output {
                junit::write(&run, flavour, &output, &none, path).map_err(|error| {
                    let failure = Failure::new(Kind::Internal, error.to_string());
                    std::error::Error::source(&error).map_or(failure.clone(), |why| failure.caused_by(why))
                })?;
                return Ok(0);
            }
            return junit_printed(&run, flavour, &output);
        }
        To::Html => {
            let sources = html::Sources { output: &output, masks: &none, spelling: &reports::spelling };
            html::text(&run, &sources).map_err(|error| unserialized(&error))?
        }
        To::Json => return json_written(args, &run),
        To::Trace => trace::text(&run, &none).map_err(|error| unserialized(&error))?,
        To::Markdown => markdown::text(&run, &none),
    };
    written(args.output.as_deref(), &text)
}

/// One file on standard output, bit by bit.
fn junit_printed(run: &Run, flavour: Flavour, output: &RunDirectory) -> Result<u8> {
    let files = junit::files(run, flavour);
    if files > 1 {
        return Err(Failure::usage(format!("{flavour} takes this run as {files} files"))
            .hint("name the first: `--output junit.xml`; the others come beside it"));
    }
    let mut out = BufWriter::new(std::io::stdout());
    let told =
        junit::pieces(run, flavour, output, &Masks::default(), &mut |_, text| out.write_all(text.as_bytes()));
    match told {
        Ok(()) => printed(out.flush()),
        Err(junit::PieceError::Taken(error)) => printed(Err(error)),
        Err(error) => Err(Failure::new(Kind::Internal, error.to_string()).caused_by(error)),
    }
}

fn json_written(args: &Report, run: &Run) -> Result<u8> {
    let mut out = stream(args)?;
    printed(json::write_to(run, &Masks::default(), &mut out).and_then(|()| out.flush()))
}

/// Whoever reads it may have had enough.
fn printed(told: std::io::Result<()>) -> Result<u8> {
    match told {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::Internal, "cannot write the report").caused_by(error))
        }
        _ => Ok(0),
    }
}

fn written(file: Option<&Path>, text: &str) -> Result<u8> {
    match file {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| Failure::file("write", path, &error))?;
            Ok(0)
        }
        None => print(text.as_bytes()),
    }
}

/// A stream for a terminal's lines. Whoever looked may have gone.
fn stream(args: &Report) -> Result<Box<dyn std::io::Write + Send>> {
    match &args.output {
        Some(path) => {
            let file = std::fs::File::create(path).map_err(|error| Failure::file("write", path, &error))?;
            Ok(Box::new(std::io::BufWriter::new(file)))
        }
        None => Ok(Box::new(std::io::BufWriter::new(std::io::stdout()))),
    }
}

/// The same lines as when it ran.
fn terminal(args: &Report, recorded: &Recorded) -> Result<u8> {
    let verbosity = if args.verbose { Verbosity::Verbose } else { Verbosity::Normal };
    let mut terminal = Terminal::new(stream(args)?, reports::style(args.output.is_none()), verbosity)
        .with_output(Box::new(RunDirectory(recorded.folder().to_path_buf())));
    let mut run = Run::new();
    for envelope in recorded.facts()? {
        let envelope = envelope?;
        run.fold(&envelope);
        if let Err(error) = terminal.event(&envelope, &run) {
            return printed(Err(error));
        }
    }
    printed(terminal.finish(&run, &reports::hints(&run, recorded.folder())))
}

fn compared(args: &Report, before: &Run, after: &Run) -> Result<u8> {
    let diff = compare::diff(&before.report(), &after.report());
    let text = match args.to {
        To::Terminal => difference(&diff, reports::style(args.output.is_none())),
        To::Json => json_of(&diff)?,
        _ => {
            return Err(Failure::usage("two runs are compared for a terminal or as JSON")
                .hint("`--to terminal` or `--to json`"));
        }
    };
    written(args.output.as_deref(), &text)
}

fn linted(args: &Report, file: &Path, consumer: &str) -> Result<u8> {
    let consumer: Flavour =
        consumer.parse().map_err(|error: junit::UnknownFlavour| Failure::usage(error.to_string()))?;
    let content = std::fs::read(file)
        .map_err(|error| Failure::usage(format!("cannot read `{}`", file.display())).caused_by(error))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let verdict = junit::lint::lint(&content, &name, consumer);
    let text = match args.to {
        To::Json => json_of(&verdict)?,
        _ => junit::lint::told(&verdict, &file.display().to_string()),
    };
    written(args.output.as_deref(), &text)?;
    Ok(if verdict.loses() { Kind::Usage.exit_code() } else { 0 })
}

fn reproduced(args: &Report, run: &Run, home: &Home) -> Result<u8> {
    let all = reproduce::all(run, &home.images());
    if args.to == To::Json {
        let value = serde_json::json!({"schema": 1, "run": run.id, "reproductions": all});
        return written(args.output.as_deref(), &json_of(&value)?);
    }
    if all.is_empty() {
        return written(args.output.as_deref(), "nothing failed\n");
    }
    let mut text = String::new();
    for one in &all {
        let what =
            if one.tests == 0 { "it never ran".to_owned() } else { plural(one.tests as u64, "failing test") };
        text.push_str(&format!("# {}: {what}\n{}\n", one.cell, one.command));
        one.differs
            .iter()
            .for_each(|differs| text.push_str(&format!("#   differs: {}\n", kmt_reporters::escape(differs))));
    }
    written(args.output.as_deref(), &text)
}

fn json_of(value: &impl serde::Serialize) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(value) => Ok(format!("{value:#}\n")),
        Err(error) => Err(Failure::new(Kind::Internal, "the report cannot be serialized").caused_by(error)),
    }
}

/// Values of variables that were passed by name, as far as they are still set.
fn passed_by_name(run: &Run) -> Vec<String> {
    let mut names = Vec::new();
    let mut words = run.command.iter();
    while let Some(word) = words.next() {
        let named =
            ["--test-env", "--test-extra-env"].into_iter().find_map(|flag| match word.strip_prefix(flag) {
                Some("") => words.next().map(String::as_str),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            });
        names.extend(named.filter(|name| !name.contains('=')).map(str::to_owned));
    }
    names.iter().filter_map(|name| std::env::var(name).ok()).collect()
}

fn exported(recorded: &Recorded, file: &Path) -> Result<u8> {
    let values = passed_by_name(&recorded.run()?);
    let exported = export::export(recorded.folder(), file, &values)?;
    let size = std::fs::metadata(file).map_or(0, |data| data.len());
    let mut said = format!(
        "{}: {} of {}, {}",
        file.display(),
        kmt_reporters::bytes(size),
        plural(exported.files, "file"),
        kmt_reporters::bytes(exported.bytes)
    );
    if exported.scrubbed > 0 {
        said.push_str(&format!("; {} scrubbed", plural(exported.scrubbed, "secret")));
    }
    super::say(&said);
    let _ = std::io::stderr().flush();
    Ok(0)
}
