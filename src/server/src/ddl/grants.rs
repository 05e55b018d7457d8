//! GRANT and REVOKE.

use crate::session::Session;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::engine::CatalogChange;
use tidemark_plan::{Grant, Object, Privilege, RelationKind};
use tidemark_planner::statement::Granted;
use tidemark_query::outcome::Outcome;

impl Session {
    pub(crate) async fn grant(
        &mut self,
        revokes: bool,
        privileges: &[Privilege],
        on: &Granted,
        grantees: &[Option<String>],
    ) -> Result<Outcome> {
        let mut grants = Vec::new();
        for object in self.objects(on)? {
            let each = grantees
                .iter()
                .flat_map(|grantee| privileges.iter().map(move |privilege| (grantee, privilege)));
            grants.extend(each.map(|(grantee, privilege)| Grant {
                object: object.clone(),
                privilege: *privilege,
                grantee: grantee.as_deref().map(|name| self.named_role(name)),
            }));
        }
        let change = match revokes {
            true => CatalogChange::Revoke { grants },
            false => CatalogChange::Grant { grants },
        };
        self.server
            .engine
            .change_catalog(vec![change], false)
            .await?;
        Ok(Outcome::Command(tag(revokes)))
    }

    pub(crate) async fn grant_roles(
        &mut self,
        revokes: bool,
        roles: &[String],
        members: &[String],
    ) -> Result<Outcome> {
        self.require_superuser("grant roles")?;
        let pairs = roles
            .iter()
            .flat_map(|role| members.iter().map(move |member| (role, member)));
        let changes = pairs.map(|(role, member)| CatalogChange::Membership {
            role: role.clone(),
            member: self.named_role(member),
            is: !revokes,
        });
        let changes = changes.collect();
        self.server.engine.change_catalog(changes, false).await?;
        Ok(Outcome::Command(format!("{} ROLE", tag(revokes))))
    }

    /// A role's name, where a word may stand for this session's.
    pub(super) fn named_role(&self, name: &str) -> String {
        match name {
            "current_user" | "session_user" | "current_role" => self.user().to_string(),
            name => name.to_string(),
        }
    }

    /// The things of a GRANT, which are this session's to give.
    fn objects(&self, on: &Granted) -> Result<Vec<Object>> {
        let catalog = self.catalog();
        let mut objects = Vec::new();
        match on {
            Granted::Relations(names) => {
                for name in names {
                    let relation = self.resolve(&catalog, name)?;
                    self.require_ownership(&relation)?;
                    objects.push(Object::Relation(relation.id));
                }
            }
            Granted::AllIn(schemas) => {
                for schema in schemas {
                    self.check_schema(schema)?;
                    let readable = |kind| !matches!(kind, RelationKind::Index | RelationKind::Sink);
                    let inside = catalog.relations.values();
                    for relation in inside.filter(|r| r.schema_name == *schema && readable(r.kind))
                    {
                        self.require_ownership(relation)?;
                        objects.push(Object::Relation(relation.id));
                    }
                }
            }
            Granted::Schemas(schemas) => {
                for schema in schemas {
                    self.check_schema(schema)?;
                    self.require_schema_ownership(schema)?;
                    objects.push(Object::Schema(schema.clone()));
                }
            }
            Granted::Databases(names) => {
                for name in names {
                    if name != "dev" {
                        let message = format!("database \"{name}\" does not exist");
                        return Err(Error::user(SqlState("3D000"), message));
                    }
                    self.require_superuser("grant privileges on the database")?;
                    objects.push(Object::Database);
                }
            }
        }
        Ok(objects)
    }

    fn check_schema(&self, name: &str) -> Result<()> {
        if name == "public" || self.catalog().schemas.iter().any(|s| s == name) {
            return Ok(());
        }
        let message = format!("schema \"{name}\" does not exist");
        Err(Error::user(SqlState::INVALID_SCHEMA_NAME, message))
    }
}

fn tag(revokes: bool) -> String {
    if revokes { "REVOKE" } else { "GRANT" }.into()
}
