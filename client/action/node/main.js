'use strict'
require('./garo').run('main')
