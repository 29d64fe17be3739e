//! What the hub told of the devices below this edge, encrypted: it holds their keys.

use holm_model::Identity;
use rusqlite::params;
use serde_json::Value;

use super::{State, StateError, read};

fn place(identity: &str) -> String {
    format!("child:{identity}")
}

impl State {
    /// Everybody below this edge, with the document that was kept, and how many are lost: those that can't be decrypted are left
    /// out and told of.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn children(&self) -> Result<(Vec<(Identity, Value)>, usize), StateError> {
        let rows = self
            .look(|db| {
                let mut find = db.prepare_cached("SELECT identity, body FROM children")?;
                let rows = find.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
                rows.collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let count = rows.len();
        let mut children = Vec::with_capacity(count);
        for (name, sealed) in rows {
            let Ok(identity) = name.parse::<Identity>() else {
                continue;
            };
            let kept = self.unseal(&place(&name), &sealed).await;
            match kept.and_then(|text| read(&text, || format!("device `{name}` below this edge"))) {
                Ok(document) => children.push((identity, document)),
                Err(error) => {
                    let error = holm_net::error_chain(&error);
                    tracing::error!(%identity, error, "what was kept of a device below this edge is lost");
                }
            }
        }
        let lost = count - children.len();
        Ok((children, lost))
    }

    /// Keeps documents of some and forgets others, in one commit.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn change_children(&self, put: Vec<(Identity, Value)>, removed: Vec<Identity>) -> Result<(), StateError> {
        let mut sealed = Vec::with_capacity(put.len());
        for (identity, document) in put {
            let name = identity.to_string();
            let body = self.seal(&place(&name), document.to_string().as_bytes()).await?;
            sealed.push((name, body));
        }
        self.change(move |db| {
            let mut put = db.prepare_cached("INSERT OR REPLACE INTO children (identity, body) VALUES (?1, ?2)")?;
            for (name, body) in sealed {
                put.execute(params![name, body])?;
            }
            let mut remove = db.prepare_cached("DELETE FROM children WHERE identity = ?1")?;
            for identity in removed {
                remove.execute([identity.to_string()])?;
            }
            Ok(())
        })
        .await
    }
}
