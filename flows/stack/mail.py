"""A block of Prefect for notifications by mail: of its own blocks none takes any mail server."""

from prefect.blocks.notifications import AppriseNotificationBlock


class Mail(AppriseNotificationBlock):
    """Sends notifications by mail; the URL is `mailtos://USER:PASSWORD@SERVER?to=ADDRESS`.

    The Prefect server sends it, so it has to know this class: `prefect_app` imports it, and a server that was started
    otherwise finds it by the entry point `prefect.collections` where this project is installed.
    """

    _block_type_name = "Mail"
    _block_type_slug = "plumbline-mail"
