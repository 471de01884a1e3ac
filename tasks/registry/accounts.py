"""The account of MLflow that workers and the receiver sign in with, on a server that knows users."""

import os
import warnings
from dataclasses import dataclass, field

from alignment.errors import ConfigError
from tasks.registry.connection import guard, place

USER, PASSWORD = "PLUMBLINE_MLFLOW_USER", "PLUMBLINE_MLFLOW_PASSWORD"
ROLE = "plumbline"
RIGHTS = {"experiment": "EDIT", "registered_model": "MANAGE"}
"""What the role may do with all of a kind. MLflow lets nobody take an alias away who may not MANAGE the model."""
WORKSPACE = "default"


@dataclass(frozen=True)
class Account:
    """A user of MLflow who is no administrator."""

    user: str
    password: str = field(repr=False)


def configured_account() -> Account | None:
    """The account that the environment names, or None. Raises ConfigError if its password is missing."""
    user = os.environ.get(USER)
    if not user:
        return None
    if not (password := os.environ.get(PASSWORD)):
        raise ConfigError(f"{USER} {user}: has no password; give it as {PASSWORD}")
    return Account(user, password)


def apply_account(account: Account) -> bool:
    """Make the account, or give it this password; returns whether it was made.

    Its role may write runs and register versions of all experiments and models; it may make no users and no webhooks,
    and delete no run. Call it as an administrator. Raises TrackingError where MLflow refuses.
    """
    from mlflow.exceptions import RestException
    from mlflow.server import get_app_client

    with warnings.catch_warnings():  # of what the server imports, and a client does not use
        warnings.simplefilter("ignore")
        users = get_app_client("basic-auth", tracking_uri=place().uri)
    with guard():
        try:
            users.create_user(account.user, account.password)
            is_new = True
        except RestException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            users.update_user_password(account.user, account.password)
            is_new = False
        roles = {role.name: role for role in users.list_roles(WORKSPACE)}
        role = roles.get(ROLE) or users.create_role(WORKSPACE, ROLE, "Runs of Plumbline: its workers and its receiver.")
        given = {(each.resource_type, each.resource_pattern) for each in users.list_role_permissions(role.id)}
        for kind, right in RIGHTS.items():
            if (kind, "*") not in given:
                users.add_role_permission(role.id, kind, "*", right)
        if role.id not in {each.id for each in users.list_user_roles(account.user)}:
            users.assign_role(account.user, role.id)
    return is_new
