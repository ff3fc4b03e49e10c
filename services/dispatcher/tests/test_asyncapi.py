"""The AsyncAPI document of the dispatcher."""

from pathlib import Path

from periplus_common.bus import asyncapi
from periplus_dispatcher.asyncapi import application

DOCUMENT = Path(__file__).parents[3] / "docs" / "asyncapi" / "dispatcher.json"


def test_the_asyncapi_document_is_what_the_code_says() -> None:
    asyncapi.assert_current(application(), DOCUMENT)
