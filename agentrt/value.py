"""Values: frozen objects of named fields that cost next to nothing to make.

A frozen dataclass takes 10 times as long to build and 10 times as long to define; a run makes two events a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

import msgspec
from pydantic_core import SchemaSerializer, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

_WRITTEN = core_schema.plain_serializer_function_ser_schema(msgspec.structs.asdict)


@dataclass_transform(frozen_default=True)
class Value(msgspec.Struct, frozen=True):
    """Be a frozen value of the fields a subclass names; pydantic reads and writes it as an object."""

    __pydantic_serializer__: ClassVar = SchemaSerializer(core_schema.any_schema(serialization=_WRITTEN))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def read(given: object) -> Value:
            try:
                return msgspec.convert(given, cls)
            except msgspec.ValidationError as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_plain_validator_function(read, serialization=_WRITTEN)
