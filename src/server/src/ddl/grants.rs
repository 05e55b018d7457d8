//! GRANT and REVOKE.

use crate::session::Session;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::engine::CatalogChange;
use tidemark_plan::{DefaultGrant, Grant, Object, Privilege, Relation, RelationKind};
use tidemark_planner::statement::{Granted, StatementKind};
use tidemark_query::error::Notice;
use tidemark_query::outcome::Outcome;
use tidemark_query::privileges::denied;

/// What privileges are of, and how messages name it.
struct Named {
    object: Object,
    kind: &'static str,
    name: String,
}

impl Named {
    fn relation(relation: &Relation) -> Named {
        Named {
            object: Object::Relation(relation.id),
            kind: relation.kind.name(),
            name: relation.name.clone(),
        }
    }
}

impl Session {
    pub(crate) async fn grant(&mut self, statement: &StatementKind) -> Result<Outcome> {
        let StatementKind::Grant {
            revokes,
            privileges,
            on,
            grantees,
            option,
            cascade,
        } = statement
        else {
            return Err(Error::internal("not a GRANT"));
        };
        let (revokes, mut grants) = (*revokes, Vec::new());
        for named in self.objects(on)? {
            for (privilege, grantor) in self.grantable(revokes, privileges, &named)? {
                grants.extend(grantees.iter().map(|grantee| Grant {
                    object: named.object.clone(),
                    privilege,
                    grantee: grantee.as_deref().map(|name| self.named_role(name)),
                    grantor: grantor.clone(),
                    with_option: *option && !revokes,
                }));
            }
        }
        let change = match revokes {
            true => CatalogChange::Revoke {
                grants,
                option_only: *option,
                cascade: *cascade,
            },
            false => CatalogChange::Grant { grants },
        };
        self.server
            .engine
            .change_catalog(vec![change], false)
            .await?;
        Ok(Outcome::Command(tag(revokes)))
    }

    /// Those of the privileges that this session may grant or revoke, each with whose grant it is.
    /// Of others it is warned, as in PostgreSQL; without any right at all it is `42501`.
    fn grantable(
        &self,
        revokes: bool,
        privileges: &[Privilege],
        named: &Named,
    ) -> Result<Vec<(Privilege, Option<String>)>> {
        let (catalog, user, object) = (self.catalog(), self.user(), &named.object);
        let grantor = |p: &Privilege| Some((*p, catalog.grantor(user, *p, object)?));
        let found: Vec<_> = privileges.iter().filter_map(grantor).collect();
        let all = match object {
            Object::Relation(_) => Privilege::OF_RELATIONS,
            Object::Schema(_) => Privilege::OF_SCHEMAS,
            Object::Database => Privilege::OF_DATABASES,
        };
        if found.is_empty() && !all.iter().any(|p| catalog.may(user, *p, object)) {
            return Err(denied(named.kind, &named.name));
        }
        let how_many = match found.len() {
            0 => "no",
            // ALL stands for those that may be granted.
            n if n == privileges.len() || privileges.len() == all.len() => return Ok(found),
            _ => "not all",
        };
        let (state, what) = match revokes {
            true => ("01006", "could be revoked"),
            false => ("01007", "were granted"),
        };
        let text = format!("{how_many} privileges {what} for \"{}\"", named.name);
        self.notice(Notice::warning(SqlState(state), text));
        Ok(found)
    }

    /// ALTER DEFAULT PRIVILEGES, of roles that this session is or is a member of.
    pub(crate) async fn default_privileges(
        &mut self,
        statement: &StatementKind,
    ) -> Result<Outcome> {
        let StatementKind::DefaultPrivileges {
            roles,
            schemas,
            of,
            revokes,
            privileges,
            grantees,
            option,
        } = statement
        else {
            return Err(Error::internal("not an ALTER DEFAULT PRIVILEGES"));
        };
        let catalog = self.catalog();
        let mut makers: Vec<String> = roles.iter().map(|role| self.named_role(role)).collect();
        if makers.is_empty() {
            makers.push(self.user().into());
        }
        let own = catalog.memberships(self.user());
        let free = |role: &&String| catalog.is_superuser(self.user()) || own.contains(*role);
        if let Some(role) = makers.iter().find(|role| !free(role)) {
            let message = format!("must be member of role \"{role}\"");
            return Err(Error::user(SqlState("42501"), message));
        }
        let everywhere = [None];
        let within: Vec<Option<String>> = schemas.iter().cloned().map(Some).collect();
        let within = if within.is_empty() {
            &everywhere[..]
        } else {
            &within
        };
        let mut grants = Vec::new();
        for (role, schema) in makers
            .iter()
            .flat_map(|r| within.iter().map(move |s| (r, s)))
        {
            for grantee in grantees {
                grants.extend(privileges.iter().map(|privilege| DefaultGrant {
                    role: role.clone(),
                    schema: schema.clone(),
                    of: *of,
                    privilege: *privilege,
                    grantee: grantee.as_deref().map(|name| self.named_role(name)),
                    with_option: *option && !revokes,
                }));
            }
        }
        let changes = vec![CatalogChange::DefaultPrivileges {
            grants,
            revokes: *revokes,
            option_only: *option,
        }];
        self.server.engine.change_catalog(changes, false).await?;
        Ok(Outcome::Command("ALTER DEFAULT PRIVILEGES".into()))
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
            "current_user" | "current_role" => self.user().to_string(),
            "session_user" => self.asker.session_user().to_string(),
            name => name.to_string(),
        }
    }

    /// The things of a GRANT.
    fn objects(&self, on: &Granted) -> Result<Vec<Named>> {
        let catalog = self.catalog();
        let mut objects = Vec::new();
        match on {
            Granted::Relations(names) => {
                for name in names {
                    objects.push(Named::relation(&*self.resolve(&catalog, name)?));
                }
            }
            Granted::AllIn(schemas) => {
                for schema in schemas {
                    self.check_schema(schema)?;
                    let readable = |kind| !matches!(kind, RelationKind::Index | RelationKind::Sink);
                    let inside = catalog.relations.values();
                    for relation in inside.filter(|r| r.schema_name == *schema && readable(r.kind))
                    {
                        objects.push(Named::relation(relation));
                    }
                }
            }
            Granted::Schemas(schemas) => {
                for schema in schemas {
                    self.check_schema(schema)?;
                    objects.push(Named {
                        object: Object::Schema(schema.clone()),
                        kind: "schema",
                        name: schema.clone(),
                    });
                }
            }
            Granted::Databases(names) => {
                for name in names {
                    if name != "dev" {
                        let message = format!("database \"{name}\" does not exist");
                        return Err(Error::user(SqlState("3D000"), message));
                    }
                    objects.push(Named {
                        object: Object::Database,
                        kind: "database",
                        name: name.clone(),
                    });
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
