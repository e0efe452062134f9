'use strict'
require('./garo').run('post')
