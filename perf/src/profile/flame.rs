//! Samples with their call graphs, folded and drawn by inferno's own programs (`cargo install inferno`).
//! They are called and not linked: inferno has a licence (CDDL) that nothing in our tree has.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Command, Stdio},
};

/// Samples a second and thread: not a divisor of the node's own ticks.
const SAMPLES_PER_SECOND: &str = "499";
/// Bytes of stack that a sample copies, since no build here has frame pointers.
const STACK_BYTES: &str = "32768";

/// The command that samples a process until it is interrupted.
pub(crate) fn record(pid: u32, event: &str, data: &Path) -> Command {
    let mut command = Command::new("perf");
    command.args(["record", "-e", event, "-F", SAMPLES_PER_SECOND, "--call-graph"]);
    command.arg(format!("dwarf,{STACK_BYTES}")).args(["-p", &pid.to_string(), "-o"]).arg(data);
    command
}

/// Samples to `stacks.folded`.
pub(crate) fn fold(data: &Path, folded: &Path) -> io::Result<()> {
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-i"]).arg(data);
    let mut script = script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stacks = script.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut collapse = Command::new("inferno-collapse-perf");
    let collapsed = collapse.stdin(stacks).stdout(File::create(folded)?).stderr(Stdio::null()).status();
    // It ends when its reader has.
    script.wait()?;
    succeeded("inferno-collapse-perf", collapsed)
}

/// `stacks.folded` to a picture.
pub(crate) fn draw(folded: &Path, title: &str, count: &str, picture: &Path) -> io::Result<()> {
    let mut command = Command::new("inferno-flamegraph");
    command.args(["--title", title, "--countname", count]).arg(folded);
    let drawn = command.stdout(File::create(picture)?).stderr(Stdio::null()).status();
    succeeded("inferno-flamegraph", drawn)
}

/// The second of two folded profiles as a picture, in red what it has more of and in blue what it has less.
pub(crate) fn draw_difference(before: &Path, after: &Path, picture: &Path) -> io::Result<()> {
    let both = picture.with_extension("folded");
    let mut diff = Command::new("inferno-diff-folded");
    let diffed = diff.arg("--normalize").args([before, after]).stdout(File::create(&both)?).status();
    succeeded("inferno-diff-folded", diffed)?;
    draw(&both, "before and after: red is more, blue is less", "of it", picture)?;
    fs::remove_file(both)
}

fn succeeded(program: &str, status: io::Result<std::process::ExitStatus>) -> io::Result<()> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("{program} ended with {status}"))),
        Err(error) => Err(io::Error::new(error.kind(), format!("{program}: {error}"))),
    }
}
