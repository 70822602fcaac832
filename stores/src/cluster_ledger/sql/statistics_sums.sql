SELECT
    coalesce(sum(tokens), 0)::bigint AS tokens,
    coalesce(sum(chat + plagiarism + prompt_generation), 0)::bigint AS requests
FROM usage_statistics
