//! `holm dps certificate …`: certificates of authorities, which enrollments name.

use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::documents::read;
use super::{said, text};
use crate::cli::{DpsCertificate, HubAccess};
use crate::commands::hub_access;
use crate::output;

const CERTIFICATES: &str = "/holm/v1/provisioning/certificates";

pub(super) async fn run(command: DpsCertificate) -> anyhow::Result<()> {
    match command {
        DpsCertificate::Create {
            name,
            certificate,
            verified,
            hub,
        } => {
            let document = json!({ "certificate": read(&certificate)?, "isVerified": verified });
            let (what, way_out) = (
                format!("certificate `{name}`"),
                format!(
                    "`holm dps certificate list` shows it; make this one by another name, or delete that with `holm dps certificate delete {name}` \
                     first"
                ),
            );
            let service = hub_access::open(&hub)?;
            let made = service.create(&path(&name), &document, &what, &way_out).await?;
            show(&made, hub.json);
        }
        DpsCertificate::Code { name, hub } => {
            let made = call(Method::POST, &format!("{}/code", path(&name)), None, &hub).await?;
            if hub.json {
                output::json(&made);
            } else {
                output::line(&text(&made, "verificationCode"));
            }
        }
        DpsCertificate::Verify { name, certificate, hub } => {
            let proof = json!({ "certificate": read(&certificate)? });
            let verified = call(Method::POST, &format!("{}/verify", path(&name)), Some(&proof), &hub).await?;
            show(&verified, hub.json);
        }
        DpsCertificate::List { hub } => {
            let found = call(Method::GET, CERTIFICATES, None, &hub).await?;
            if hub.json {
                output::json(&found);
            } else {
                table(found.as_array().map(Vec::as_slice).unwrap_or_default());
            }
        }
        DpsCertificate::Delete { name, hub } => {
            call(Method::DELETE, &path(&name), None, &hub).await?;
            said(&name, "deleted", hub.json);
        }
    }
    Ok(())
}

fn path(name: &str) -> String {
    format!("{CERTIFICATES}/{}", percent::encode(name))
}

async fn call(method: Method, path: &str, body: Option<&Value>, hub: &HubAccess) -> anyhow::Result<Value> {
    Ok(hub_access::open(hub)?.call(method, path, &[], body).await?.body)
}

fn show(certificate: &Value, as_json: bool) {
    if as_json {
        output::json(certificate);
    } else {
        table(std::slice::from_ref(certificate));
    }
}

fn table(certificates: &[Value]) {
    let row = |certificate: &Value| {
        let verified = if certificate["isVerified"] == true { "yes" } else { "no" };
        let info = &certificate["info"];
        vec![
            text(certificate, "name"),
            verified.to_owned(),
            text(info, "subjectName"),
            text(info, "notAfterUtc"),
        ]
    };
    let rows: Vec<_> = certificates.iter().map(row).collect();
    output::table(&["CERTIFICATE", "VERIFIED", "SUBJECT", "UNTIL"], &rows);
}
