"""expr-lang, the language of {{=…}}, `expression` and `fromExpression`."""
