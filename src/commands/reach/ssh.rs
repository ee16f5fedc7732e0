//! `stack ssh`: this process becomes the one that talks to the machine.

use std::io::IsTerminal as _;

use super::{find, line_of, unreachable};
use crate::error::{Failure, Kind, Result};
use crate::external::transport::Terminal;
use crate::machine::Parts;
use crate::settings::Settings;
use crate::world::World;

/// Opens a shell, or runs a command; its status is the exit code.
///
/// # Errors
/// No such machine, or it does not run.
pub(super) async fn ssh(
    settings: &Settings,
    world: &World,
    stack: Option<&str>,
    vm: &str,
    command: &[String],
) -> Result<u8> {
    let named = find(settings, stack, vm).await?;
    if let Some(failure) = unreachable(world, &named).await {
        return Err(failure);
    }
    let route = Parts::route_of(&named.stack, &named.machine);
    let people = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = if people { Terminal::Wanted } else { Terminal::None };
    let program = world.transport.program(&route, line_of(command).as_deref(), terminal).await?;
    Err(Failure::outside(Kind::Infrastructure, &program.take_over()))
}
