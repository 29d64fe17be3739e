//! `holm dps run`: a provisioning service in a process of its own. It is a hub that no device is given to and that answers nothing
//! else.

use std::num::NonZeroU32;

use crate::cli::DpsRun;
use crate::commands::hub;
use crate::open_files;
use crate::signals::Signals;

pub(super) async fn run(options: DpsRun) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut config = options.serving.config();
    config.provisioning_only = true;
    config.files = None;
    config.registrations_per_minute = options.max_registrations_per_minute.and_then(NonZeroU32::new);
    config.issued_certificate_days = options.issued_certificate_days;
    let room = hub::Room::new(open_files::raise(), None);
    hub::run_until_told(config, options.status, options.check, room, &mut signals).await
}
