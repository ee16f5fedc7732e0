//! `config show`: every value and where it comes from.

use serde_json::json;

use super::{print, print_json};
use crate::cli::Format;
use crate::error::Result;
use crate::settings::component::Layout;
use crate::settings::{Origin, Settings, Warmth};

/// Shows every value.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn show(format: Format, settings: &Settings) -> Result<u8> {
    let rows = rows(settings);
    if format == Format::Json {
        let values: Vec<_> = rows
            .iter()
            .map(
                |(name, value, origin)| json!({ "name": name, "value": value, "origin": origin.to_string() }),
            )
            .collect();
        return print_json(&json!({ "schema": 1, "values": values }));
    }
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    let text: String =
        rows.iter().map(|(name, value, origin)| format!("{name:<width$}  {value}  ({origin})\n")).collect();
    print(text.as_bytes())
}

fn rows(settings: &Settings) -> Vec<(String, String, Origin)> {
    let home = &settings.home;
    let shown = |path: &std::path::Path| path.display().to_string();
    let file = Origin::File(settings.root.value.join("kmt.toml"));
    let mut rows = vec![
        ("root".to_owned(), shown(&settings.root.value), settings.root.origin.clone()),
        ("home".to_owned(), shown(&home.root.value), home.root.origin.clone()),
        ("cache".to_owned(), shown(home.cache()), home.root.origin.clone()),
        ("libvirt-uri".to_owned(), settings.libvirt_uri.value.clone(), settings.libvirt_uri.origin.clone()),
        (
            "warm-start".to_owned(),
            (settings.warm.value == Warmth::Auto).to_string(),
            settings.warm.origin.clone(),
        ),
        ("profile".to_owned(), settings.profile.value.clone(), settings.profile.origin.clone()),
    ];
    let exit = settings.config.profile.get(&settings.profile.value).and_then(|p| p.test_failure_exit_code);
    let origin = if exit.is_some() { file.clone() } else { Origin::Default };
    rows.push(("test-failure-exit-code".to_owned(), settings.test_failure_exit_code().to_string(), origin));
    if let Some(name) = &settings.config.default_component {
        rows.push(("default-component".to_owned(), name.clone(), file.clone()));
    }
    if let Some(key) = &settings.ssh_key {
        let path = key.value.path.as_deref().map_or("(an agent's)".to_owned(), shown);
        let values = [
            ("path", path),
            ("name", key.value.name.clone()),
            ("aws-key-name", key.value.aws_key_name.clone()),
        ];
        rows.extend(values.map(|(name, value)| (format!("ssh-key.{name}"), value, key.origin.clone())));
    }
    for host in &settings.hosts.value {
        let value = format!("{} {}", host.place(), host.arch);
        rows.push((format!("host.{}", host.name), value, settings.hosts.origin.clone()));
    }
    for (name, component) in &settings.config.component {
        let mut add = |key: &str, value: String, origin: &Origin| {
            rows.push((format!("component.{name}.{key}"), value, origin.clone()));
        };
        add("builder", format!("{:?}", component.builder).to_lowercase(), &file);
        add("packages", component.packages.join(","), &file);
        add("timeout", format!("{}s", component.timeout.as_secs()), &file);
        let layout = if component.layout == Layout::Neutral { &Origin::Default } else { &file };
        add("layout", component.layout_of(name), layout);
    }
    rows
}
