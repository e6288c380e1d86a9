//! Crashes in the middle: whatever was made until then, `down` removes it.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::Layout;

use crate::support;

#[test]
fn down_removes_what_a_killed_up_left() -> Result<()> {
    if support::is_skipped() {
        return Ok(());
    }
    let _turn = support::turn()?;
    let layout: Layout = "crsh:4".parse()?;
    for pause in [20, 150, 400, 1000].map(Duration::from_millis) {
        let mut up = Command::new(support::binaries()?.local)
            .args(["--layout", "crsh:4", "up"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start hawser-local up")?;
        std::thread::sleep(pause);
        up.kill()?;
        up.wait()?;
        e2e::down(&layout, true).with_context(|| format!("down after a kill at {pause:?}"))?;
        support::nothing_is_left(&layout).with_context(|| format!("after a kill at {pause:?}"))?;
    }
    Ok(())
}
